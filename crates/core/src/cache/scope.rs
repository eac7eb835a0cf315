//! What a write may have changed.
//!
//! Nobody tells a gateway which answers depend on which others, but paths of REST interfaces are made so that they nest: a
//! write to a resource changes it, what lies below it, and the listings and entities above it that show it. A last segment
//! that is a word and not an identifier names an action or a collection of its parent (`/users/bulk`), and may change any of
//! the parent's other children. Closing too much costs a call; closing too little shows a caller the past.

use crate::key::FAMILY_SEGMENTS;

/// A place whose answers may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scope<'p> {
    pub(super) path: &'p str,
    /// Whether all below it may have changed too.
    pub(super) below: bool,
}

/// Everything a write to the normalised `path` may have changed.
pub(super) fn scopes(path: &str) -> impl Iterator<Item = Scope<'_>> {
    let action = action_of(path);
    let own = Scope { path, below: true };
    let above = std::iter::successors(parent(path), |path| parent(path));
    std::iter::once(own).chain(above.map(move |path| Scope { path, below: Some(path) == action }))
}

/// The parent whose other children an action changes.
fn action_of(path: &str) -> Option<&str> {
    let (parent, last) = (parent(path)?, path.rsplit('/').next()?);
    let is_deep = parent.matches('/').count() >= FAMILY_SEGMENTS;
    (is_deep && !crate::key::looks_like_an_id(last)).then_some(parent)
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent).filter(|parent| !parent.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Vec<(&str, bool)> {
        scopes(path).map(|scope| (scope.path, scope.below)).collect()
    }

    #[test]
    fn a_write_closes_itself_what_is_below_and_what_shows_it() {
        assert_eq!(
            of("/api/v2/users/17"),
            [("/api/v2/users/17", true), ("/api/v2/users", false), ("/api/v2", false), ("/api", false)]
        );
    }

    #[test]
    fn an_action_closes_its_siblings() {
        assert_eq!(of("/api/v2/users/bulk")[1], ("/api/v2/users", true));
        assert_eq!(of("/api/v2/users/17/routingskills/bulk")[1], ("/api/v2/users/17/routingskills", true));
    }

    #[test]
    fn a_collection_does_not_close_the_whole_interface() {
        assert_eq!(of("/api/v2/users"), [("/api/v2/users", true), ("/api/v2", false), ("/api", false)]);
    }
}
