//! The pending items of a journal, page by page, read off the tasks' threads.

use tidegate_store::{Error, Journal, Pending, Reader};

/// Items read at once.
const PAGE: u32 = 512;

/// Walks the pending items in order.
pub(super) struct Pages {
    reader: Option<Reader>,
}

impl Pages {
    pub(super) fn new(journal: &Journal) -> Result<Self, Error> {
        Ok(Self { reader: Some(journal.reader()?) })
    }

    /// The pending items after `after`, at most a page of them.
    pub(super) async fn after(&mut self, after: u64) -> Result<Vec<Pending>, Error> {
        self.read(move |reader| reader.pending(after, PAGE)).await
    }

    /// The items that the upstream has accepted as jobs and not ended.
    pub(super) async fn open_jobs(&mut self) -> Result<Vec<Pending>, Error> {
        self.read(Reader::open_jobs).await
    }

    async fn read(
        &mut self,
        read: impl FnOnce(&Reader) -> Result<Vec<Pending>, Error> + Send + 'static,
    ) -> Result<Vec<Pending>, Error> {
        let reader = self.reader.take().expect("it is put back below");
        let read = tokio::task::spawn_blocking(move || {
            let page = read(&reader);
            (reader, page)
        });
        let (reader, page) = read.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        self.reader = Some(reader);
        page
    }
}
