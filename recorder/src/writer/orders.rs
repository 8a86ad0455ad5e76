//! Orders to a thread that also works by itself, when it is time.

use super::sync::{Receiver, Sender};

/// What such a thread does.
pub(crate) trait Serves: Sized {
    /// What may be asked of it.
    type Order;

    /// Sleeps until there may be something to do.
    fn wait(&self);

    /// Does what there is to do each time it wakes.
    fn tick(&mut self);

    /// Does what was asked; gives itself back unless that was the last.
    fn obey(self, order: Self::Order) -> Option<Self>;
}

/// The life of the thread. Who sent an order that is not obeyed any more learns so by the end of
/// the channel to reply by, which is dropped with the order.
pub(crate) fn serve<W: Serves>(mut worker: W, inbox: &Receiver<W::Order>) {
    loop {
        worker.wait();
        worker.tick();
        while let Ok(order) = inbox.try_recv() {
            let Some(goes_on) = worker.obey(order) else { return };
            worker = goes_on;
        }
    }
}

/// Gives an order, and wakes the thread with `wake`; `None` when it has ended.
pub(crate) fn order<O>(orders: &Sender<O>, order: O, wake: impl FnOnce()) -> Option<()> {
    // In this order: woken before, it could find nothing and sleep again.
    orders.send(order).ok()?;
    wake();
    Some(())
}
