//! Ports of our own.

use tokio::net::TcpListener;

use crate::failure::Failure;

/// Listens on `addr`, which `flag` names.
pub(crate) async fn bind(addr: std::net::SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(addr).await.map_err(|error| {
        let hint = if error.kind() == std::io::ErrorKind::AddrInUse {
            format!(" (another program has it: choose another with {flag}, or port 0 for a free one)")
        } else {
            String::new()
        };
        Failure::usage(format!("cannot listen on {addr}: {error}{hint}"))
    })
}
