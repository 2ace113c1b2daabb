//! A stream whose writes are kept until the connection's turn is over, so that the answers of a
//! turn leave in one system call.
//!
//! HTTP/2 flushes after every frame that it takes in. Here a flush is a promise, which
//! [`super::turns::LastInLine`] keeps at the end of each of the connection's turns.

use std::io::{Error, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Above this, writes go through at once.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// A buffer that has grown larger is given back when it is empty.
const CAPACITY_KEPT_BYTES_MAX: usize = 16 * 1024;

/// One connection's stream. Only the connection's own task uses it, so the lock is never waited
/// for; it is there because the task reaches the stream from two places.
pub struct Cork<S> {
    shared: Arc<Mutex<Kept<S>>>,
}

struct Kept<S> {
    stream: S,
    out: BytesMut,
}

impl<S> Clone for Cork<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    pub fn new(stream: S) -> Self {
        let out = BytesMut::new();
        Self {
            shared: Arc::new(Mutex::new(Kept { stream, out })),
        }
    }

    /// Writes what was kept, as far as the stream takes it; wakes the task to go on.
    ///
    /// # Errors
    /// The stream is broken.
    pub fn poll_uncork(&self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.shared.lock().drain(context)
    }
}

impl<S: AsyncWrite + Unpin> Kept<S> {
    fn drain(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        // Nothing to do for a socket; TLS may hold records that the socket did not take.
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if self.out.capacity() > CAPACITY_KEPT_BYTES_MAX {
            self.out = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    fn keep(
        &mut self,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Error>> {
        if self.out.len() >= KEPT_BYTES_MAX {
            ready!(self.drain(context))?;
        }
        let before = self.out.len();
        for piece in pieces {
            let room = KEPT_BYTES_MAX - self.out.len();
            self.out.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        Poll::Ready(Ok(self.out.len() - before))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cork<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.shared.lock().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cork<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<Result<usize, Error>> {
        self.shared.lock().keep(context, &[IoSlice::new(buffer)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Error>> {
        self.shared.lock().keep(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut kept = self.shared.lock();
        ready!(kept.drain(context))?;
        Pin::new(&mut kept.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn nothing_leaves_before_its_turn_and_nothing_is_lost() {
        // The pipe takes 1 KiB at a time: less than what is kept.
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut cork = Cork::new(ours);
        let sent: Vec<u8> = (0..3 * KEPT_BYTES_MAX).map(|n| n as u8).collect();
        cork.write_all(&sent[..100]).await.expect("it is kept");
        cork.flush().await.expect("it is promised");
        let mut context = Context::from_waker(Waker::noop());
        let mut nothing = [0; 1];
        let mut nothing = ReadBuf::new(&mut nothing);
        assert!(
            Pin::new(&mut theirs)
                .poll_read(&mut context, &mut nothing)
                .is_pending()
        );
        assert!(cork.poll_uncork(&mut context).is_ready());

        let mut received = vec![0; sent.len()];
        let writing = async {
            cork.write_all(&sent[100..]).await.expect("it is written");
            std::future::poll_fn(|context| cork.poll_uncork(context)).await
        };
        let (written, read) = tokio::join!(writing, theirs.read_exact(&mut received));
        written.expect("all is written");
        read.expect("all comes");
        assert_eq!(received, sent);
    }

    #[tokio::test]
    async fn a_broken_stream_is_told_and_shutdown_writes_the_rest() {
        let (ours, theirs) = tokio::io::duplex(1024);
        drop(theirs);
        let mut cork = Cork::new(ours);
        cork.write_all(b"lost").await.expect("it is kept");
        let told = std::future::poll_fn(|context| cork.poll_uncork(context)).await;
        assert_eq!(
            told.expect_err("it is broken").kind(),
            ErrorKind::BrokenPipe
        );

        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut cork = Cork::new(ours);
        cork.write_all(b"rest").await.expect("it is kept");
        cork.shutdown().await.expect("it ends");
        let mut rest = Vec::new();
        theirs.read_to_end(&mut rest).await.expect("it comes");
        assert_eq!(rest, b"rest");
    }
}
