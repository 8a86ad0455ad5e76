//! Locks of a checker, with the faces that `sync` of the recorder has.

/// The part of parking_lot that the protocols use, on locks that look like those of `std`. Waiting
/// never times out: who is not woken waits for ever, which the checkers report.
macro_rules! locks_of {
    ($($checker:ident)::+) => {
        #[derive(Debug)]
        pub(crate) struct Mutex<T>($($checker)::+::sync::Mutex<T>);

        impl<T> Mutex<T> {
            pub(crate) fn new(value: T) -> Self {
                Self($($checker)::+::sync::Mutex::new(value))
            }

            pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
                MutexGuard(Some(self.0.lock().unwrap()))
            }
        }

        /// There but while its thread waits.
        #[derive(Debug)]
        pub(crate) struct MutexGuard<'a, T>(Option<$($checker)::+::sync::MutexGuard<'a, T>>);

        impl<T> std::ops::Deref for MutexGuard<'_, T> {
            type Target = T;

            fn deref(&self) -> &T {
                self.0.as_ref().unwrap()
            }
        }

        impl<T> std::ops::DerefMut for MutexGuard<'_, T> {
            fn deref_mut(&mut self) -> &mut T {
                self.0.as_mut().unwrap()
            }
        }

        #[derive(Debug)]
        pub(crate) struct Condvar($($checker)::+::sync::Condvar);

        impl Condvar {
            pub(crate) fn new() -> Self {
                Self($($checker)::+::sync::Condvar::new())
            }

            pub(crate) fn wait_for<T>(
                &self,
                guard: &mut MutexGuard<'_, T>,
                _: std::time::Duration,
            ) -> bool {
                guard.0 = guard.0.take().map(|guard| self.0.wait(guard).unwrap());
                false
            }

            pub(crate) fn notify_all(&self) {
                self.0.notify_all();
            }
        }
    };
}

pub(crate) use locks_of;
