//! A cluster of several nodes on the loopback, made of servers of the test's own.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue};
use tidegate_core::share::BankKey;
use tokio::time::Instant;

use crate::server::Server;
use crate::support::look;

const SLOTS: u16 = 16_384;

/// A node and a connection to look with.
pub(crate) struct Node {
    pub(crate) server: Server,
    pub(crate) look: MultiplexedConnection,
    pub(crate) id: String,
}

/// `CLUSTER …`.
fn cluster(words: &str) -> Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg(words.split(' ').collect::<Vec<_>>());
    command
}

impl Node {
    async fn start() -> Self {
        // A stale replica may take over, and one that is gone is noticed within a test.
        let server = Server::start(&[
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "2000",
            "--cluster-replica-validity-factor",
            "0",
            "--cluster-require-full-coverage",
            "no",
        ]);
        let mut look = look(&server).await;
        let id = cluster("MYID").query_async(&mut look).await.unwrap();
        Self { server, look, id }
    }

    pub(crate) async fn cluster<T: FromRedisValue>(&mut self, words: &str) -> T {
        let said: redis::RedisResult<T> = cluster(words).query_async(&mut self.look).await;
        said.unwrap_or_else(|error| panic!("CLUSTER {words}: {error}"))
    }

    pub(crate) async fn keys(&mut self) -> Vec<String> {
        redis::cmd("KEYS").arg("*").query_async(&mut self.look).await.unwrap()
    }

    /// Waits until `CLUSTER command` says `what`.
    pub(crate) async fn until(&mut self, command: &str, what: impl Fn(&str) -> bool) {
        let end = Instant::now() + std::time::Duration::from_secs(30);
        loop {
            let said: String = self.cluster(command).await;
            if what(&said) {
                return;
            }
            assert!(Instant::now() < end, "{command}: {said}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// So many masters with an equal part of the slots each.
pub(crate) async fn masters(count: u16) -> Vec<Node> {
    let mut nodes = Vec::new();
    for number in 0..count {
        let mut node = Node::start().await;
        let (from, to) = (part(number, count), part(number + 1, count));
        let slots: Vec<String> = (from..to).map(|slot| slot.to_string()).collect();
        let () = node.cluster(&format!("ADDSLOTS {}", slots.join(" "))).await;
        // Two that claim the same epoch would first have to agree.
        let () = node.cluster(&format!("SET-CONFIG-EPOCH {}", number + 1)).await;
        nodes.push(node);
    }
    for number in 1..nodes.len() {
        meet(&mut nodes, number).await;
    }
    for node in &mut nodes {
        let all = format!("cluster_slots_ok:{SLOTS}");
        node.until("INFO", |info| info.contains("cluster_state:ok") && info.contains(&all)).await;
    }
    nodes
}

fn part(number: u16, count: u16) -> u16 {
    u16::try_from(u32::from(SLOTS) * u32::from(number) / u32::from(count)).unwrap()
}

async fn meet(nodes: &mut [Node], number: usize) {
    let port = nodes[0].server.port;
    nodes[number].cluster::<()>(&format!("MEET 127.0.0.1 {port}")).await;
}

/// A replica of a master, with all that it has.
pub(crate) async fn replica(nodes: &mut Vec<Node>, of: usize) -> usize {
    let number = nodes.len();
    nodes.push(Node::start().await);
    meet(nodes, number).await;
    let id = nodes[of].id.clone();
    let replica = &mut nodes[number];
    replica.until("NODES", |nodes| nodes.contains(&id) && !nodes.contains("handshake")).await;
    let () = replica.cluster(&format!("REPLICATE {id}")).await;
    in_step(&mut nodes[of]).await;
    number
}

/// Waits until a master's replica has all that was written.
pub(crate) async fn in_step(master: &mut Node) {
    let end = Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let mut wait = redis::cmd("WAIT");
        wait.arg(1).arg(500);
        let written: redis::RedisResult<u32> = wait.query_async(&mut master.look).await;
        if written.is_ok_and(|written| written == 1) {
            return;
        }
        assert!(Instant::now() < end, "the replica never has all");
    }
}

/// The URL of a cluster.
pub(crate) fn url(nodes: &[Node]) -> String {
    let hosts: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.server.port)).collect();
    format!("redis+cluster://{}", hosts.join(","))
}

/// The slot of a bank's keys.
pub(crate) async fn slot(nodes: &mut [Node], bank: BankKey) -> u16 {
    nodes[0].cluster(&format!("KEYSLOT tidegate:{{{bank}}}:b")).await
}

/// The master that has a bank.
pub(crate) async fn place(nodes: &mut [Node], masters: u16, bank: BankKey) -> usize {
    let slot = slot(nodes, bank).await;
    (0..masters).find(|&number| slot < part(number + 1, masters)).map(usize::from).unwrap()
}
