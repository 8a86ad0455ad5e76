//! An object store for tests whose n-th operation fails, before or after it took effect.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// Memory that fails once.
#[derive(Debug)]
pub(super) struct Failing {
    inner: Arc<InMemory>,
    fuse: Arc<Fuse>,
}

/// Counts operations down to the one that fails.
#[derive(Debug)]
struct Fuse {
    left: AtomicI64,
    /// Whether the failing write takes effect: the answer is lost, not the request.
    takes_effect: bool,
}

impl Failing {
    /// Operation `n`, from 0, fails; the others go to `inner`.
    pub(super) fn at(n: i64, takes_effect: bool, inner: &Arc<InMemory>) -> Self {
        let fuse = Fuse { left: AtomicI64::new(n), takes_effect };
        Self { inner: Arc::clone(inner), fuse: Arc::new(fuse) }
    }

    /// Whether the operation that fails was reached.
    pub(super) fn has_failed(&self) -> bool {
        self.fuse.left.load(Ordering::SeqCst) < 0
    }
}

impl Fuse {
    fn burns(&self) -> bool {
        self.left.fetch_sub(1, Ordering::SeqCst) == 0
    }

    fn read(&self) -> Result<()> {
        if self.burns() { Err(broken()) } else { Ok(()) }
    }
}

fn broken() -> Error {
    Error::Generic { store: "failing", source: "the line broke".into() }
}

impl std::fmt::Display for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failing")
    }
}

#[async_trait]
impl ObjectStore for Failing {
    async fn put_opts(&self, to: &Path, content: PutPayload, how: PutOptions) -> Result<PutResult> {
        if !self.fuse.burns() {
            return self.inner.put_opts(to, content, how).await;
        }
        if self.fuse.takes_effect {
            self.inner.put_opts(to, content, how).await?;
        }
        Err(broken())
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.fuse.read()?;
        let inner = self.inner.put_multipart_opts(to, how).await?;
        Ok(Box::new(FailingUpload { inner, fuse: Arc::clone(&self.fuse) }))
    }

    async fn get_opts(&self, from: &Path, how: GetOptions) -> Result<GetResult> {
        self.fuse.read()?;
        self.inner.get_opts(from, how).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        match self.fuse.read() {
            Ok(()) => self.inner.delete_stream(paths),
            Err(error) => futures::stream::once(async move { Err(error) }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fuse.read() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures::stream::once(async move { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.fuse.read()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.fuse.read()?;
        self.inner.copy_opts(from, to, how).await
    }
}

#[derive(Debug)]
struct FailingUpload {
    inner: Box<dyn MultipartUpload>,
    fuse: Arc<Fuse>,
}

#[async_trait]
impl MultipartUpload for FailingUpload {
    fn put_part(&mut self, content: PutPayload) -> UploadPart {
        match self.fuse.read() {
            Ok(()) => self.inner.put_part(content),
            Err(error) => async move { Err(error) }.boxed(),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        if !self.fuse.burns() {
            return self.inner.complete().await;
        }
        if self.fuse.takes_effect {
            self.inner.complete().await?;
        }
        Err(broken())
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
