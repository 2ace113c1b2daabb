//! How calls and their connection take turns on a worker, so that many answers leave in one
//! system call.
//!
//! Left alone, each call is a task of its own whose answer wakes the connection at once, which
//! then writes that one answer: a system call, and a task, for each call.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::io::AsyncWrite;

use super::cork::Cork;

/// Runs a call to its end where it stands when it has nothing to wait for, as a read of this
/// member's own state; a call that must wait becomes a task.
#[derive(Debug, Clone, Copy)]
pub struct EagerExecutor;

impl<F> hyper::rt::Executor<F> for EagerExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        let mut call = Box::pin(call);
        // The task polls it again with a waker of its own.
        let mut context = Context::from_waker(Waker::noop());
        if call.as_mut().poll(&mut context).is_pending() {
            tokio::spawn(call);
        }
    }
}

/// Calls of one connection that have not been answered yet.
#[derive(Debug, Clone, Default)]
pub struct Unanswered(Arc<AtomicUsize>);

/// One call that is unanswered until this is dropped.
pub struct CallGuard(Unanswered);

impl Unanswered {
    pub fn begin(&self) -> CallGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        CallGuard(self.clone())
    }

    fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that goes to the end of the line once while other calls of it are under way:
/// those that are ready answer first. With none under way, it goes on at once. What it wrote
/// leaves at the end of its turn.
pub struct LastInLine<F, S> {
    connection: F,
    cork: Cork<S>,
    unanswered: Unanswered,
    has_waited: bool,
}

impl<F, S> LastInLine<F, S> {
    pub fn new(connection: F, cork: Cork<S>, unanswered: Unanswered) -> Self {
        Self {
            connection,
            cork,
            unanswered,
            has_waited: false,
        }
    }
}

impl<F, S> Future for LastInLine<F, S>
where
    F: Future + Unpin,
    S: AsyncWrite + Unpin,
{
    /// None when the connection broke while its answers were written.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.has_waited && self.unanswered.any() {
            self.has_waited = true;
            // Woken while it runs, a task is put behind all that are ready.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.has_waited = false;
        let turn = Pin::new(&mut self.connection).poll(context);
        match self.cork.poll_uncork(context) {
            Poll::Ready(Err(_)) => Poll::Ready(None),
            Poll::Ready(Ok(())) | Poll::Pending => turn.map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::rt::Executor;

    use super::*;

    #[tokio::test]
    async fn a_call_that_is_ready_ends_at_once_and_another_becomes_a_task() {
        let done = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&done);
        EagerExecutor.execute(async move {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 1);

        let (ready, wait) = tokio::sync::oneshot::channel::<()>();
        let (end, ended) = tokio::sync::oneshot::channel();
        EagerExecutor.execute(async move {
            end.send(wait.await).expect("the test waits");
        });
        ready.send(()).expect("the call waits");
        assert_eq!(ended.await.expect("the call ends"), Ok(()));
    }

    #[test]
    fn a_connection_waits_once_while_calls_are_under_way() {
        let unanswered = Unanswered::default();
        let line = || {
            let cork = Cork::new(tokio::io::sink());
            LastInLine::new(Box::pin(std::future::ready(7)), cork, unanswered.clone())
        };
        let mut connection = line();
        let mut context = Context::from_waker(Waker::noop());
        let call = unanswered.begin();
        assert!(Pin::new(&mut connection).poll(&mut context).is_pending());
        assert_eq!(
            Pin::new(&mut connection).poll(&mut context),
            Poll::Ready(Some(7))
        );
        drop(call);
        assert_eq!(
            Pin::new(&mut line()).poll(&mut context),
            Poll::Ready(Some(7))
        );
    }
}
