//! Ports of our own.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::failure::Failure;

/// Listens on `addr`, which `flag` names.
pub(crate) async fn bind(addr: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(addr).await.map_err(|error| {
        let hint = if error.kind() == ErrorKind::AddrInUse {
            format!(" (another program has it: choose another with {flag}, or port 0 for a free one)")
        } else {
            String::new()
        };
        Failure::usage(format!("cannot listen on {addr}: {error}{hint}"))
    })
}

/// Whether this machine lets a program listen on `addr`, which `flag` names, now or when the program that has it ends.
pub(crate) async fn could_bind(addr: SocketAddr, flag: &str) -> Result<(), Failure> {
    match TcpListener::bind(addr).await {
        Err(error) if error.kind() != ErrorKind::AddrInUse => {
            Err(Failure::usage(format!("cannot listen on {addr}: {error} (choose another with {flag})")))
        }
        _ => Ok(()),
    }
}
