//! The examples are run as they are, each against the simulator it starts.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../examples/list_users.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "the test calls `run`, not `main`; each example has its own copy"
)]
mod list_users;

#[path = "../examples/own_layer.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "the test calls `run`, not `main`; each example has its own copy"
)]
mod own_layer;

#[path = "../examples/patch_skills.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "the test calls `run`, not `main`; each example has its own copy"
)]
mod patch_skills;

#[tokio::test]
async fn list_users_lists_every_user_once() {
    let names = list_users::run().await.unwrap();
    assert_eq!(names.len(), 450);
}

#[tokio::test]
async fn patch_skills_patches_every_user() {
    let sums = patch_skills::run().await.unwrap();
    assert_eq!((sums.patched, sums.failed, sums.unknown), (50, 0, 0), "{sums:?}");
}

#[tokio::test]
async fn own_layer_sees_every_attempt_before_it_leaves() {
    let (trail, counter) = own_layer::run().await.unwrap();
    let lines = trail.lines();
    let user = "PATCH /api/v2/users/00000000-0000-4000-8000-000000000001/routingskills/bulk (attempt 1)";
    assert_eq!(lines, ["GET /api/v2/users (attempt 1)", "GET /api/v2/users (attempt 2)", user]);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    assert_eq!((counter.answers.load(relaxed), counter.throttles.load(relaxed)), (2, 1));
}
