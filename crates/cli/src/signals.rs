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

/// A file that may not grow any more (`ulimit -f`) is a failure of the disk, which is told as one: without this its signal
/// would end the process without a word.
#[cfg(unix)]
pub(crate) fn outlive_file_limits() {
    /// `SIGXFSZ`, on Linux and on the BSDs.
    const FILE_SIZE: i32 = 25;
    // Heard once it is heard for good. An error means that it cannot be, and then the limit ends the process.
    drop(tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(FILE_SIZE)));
}

#[cfg(not(unix))]
pub(crate) fn outlive_file_limits() {}

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
