//! Ctrl-C and its likes.

/// Listens for the wish that the process end, from this call on; the future ends when it comes.
///
/// Until the first call a signal ends the process at once, so whoever says that it is ready listens before.
pub(crate) fn interrupted() -> impl Future<Output = ()> {
    let signals = heard();
    async {
        // An error means that no signal can be waited for: then only a kill ends the process.
        match signals {
            Ok(signals) => signals.await,
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(unix)]
fn heard() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn heard() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        let _: Option<()> = interrupt.recv().await;
    })
}
