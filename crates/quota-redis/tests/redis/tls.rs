//! TLS, ended in front of the server, so that it does not matter how the server was built.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tidegate_quota::Store;
use tidegate_quota_redis::RedisConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::server::Server;
use crate::support::{BANK, said, unusable, with};

const AUTHORITY: &[u8] = include_bytes!("tls/authority.pem");
const STRANGER: &[u8] = include_bytes!("tls/stranger.pem");

/// Shows a certificate for 127.0.0.1 that the authority signed.
fn acceptor() -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Ends TLS on a port of its own.
async fn front(server: &Server) -> u16 {
    let acceptor = acceptor();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (front, back) = (listener.local_addr().unwrap().port(), server.port);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(socket).await else { return };
                let mut inside = TcpStream::connect((Ipv4Addr::LOCALHOST, back)).await.unwrap();
                // Whichever side ends first ends both.
                drop(tokio::io::copy_bidirectional(&mut outside, &mut inside).await);
            });
        }
    });
    front
}

#[tokio::test]
async fn a_named_authority_is_trusted_and_no_other() {
    let server = Server::start(&[]);
    let port = front(&server).await;
    let url = format!("rediss://127.0.0.1:{port}");
    let trusted = RedisConfig { ca: Some(AUTHORITY.to_vec()), ..RedisConfig::new(url.clone()) };
    assert_eq!(with(trusted).exchange(BANK, &said(1, 1, 2)).await.unwrap().limits.len(), 2);

    for ca in [Some(STRANGER.to_vec()), None] {
        let stranger = RedisConfig { ca, ..RedisConfig::new(url.clone()) };
        let (why, hint) = unusable(with(stranger).exchange(BANK, &said(2, 1, 1)).await);
        assert!(hint.contains("quota.ca_file"), "{why}");
    }
}
