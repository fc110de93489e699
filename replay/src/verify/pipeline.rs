//! Chunks on many threads, folded in order on one.
//!
//! The calling thread reads, folds, and takes chunks itself while it would wait. With one job it does everything, and
//! no thread is started.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Hands each chunk of `next` to `work`, on `jobs` threads, and the answers to `fold`, in the order of the chunks.
pub(super) fn run<T: Send, U: Send>(
    jobs: usize,
    mut next: impl FnMut() -> Option<T>,
    work: impl Fn(T) -> U + Sync,
    mut fold: impl FnMut(U) -> ControlFlow<()>,
) {
    let queue = Queue::default();
    // The bound on chunks in memory, whatever the number of threads.
    let ahead = if jobs == 1 { 1 } else { (2 * jobs as u64 + 2).min(64) };
    thread::scope(|scope| {
        for _ in 1..jobs {
            scope.spawn(|| queue.serve(&work));
        }
        let _close = Close(&queue);
        let (mut read, mut folded, mut more) = (0, 0, true);
        loop {
            while more && read - folded < ahead {
                match next() {
                    Some(chunk) => queue.put(read, chunk),
                    None => more = false,
                }
                read += u64::from(more);
            }
            if folded == read {
                return;
            }
            let Some(answer) = queue.take(folded, &work) else { return };
            folded += 1;
            if fold(answer).is_break() {
                return;
            }
        }
    });
}

struct Queue<T, U> {
    state: Mutex<State<T, U>>,
    /// Something to do has come, or nothing will.
    due: Condvar,
    /// Something was done.
    done: Condvar,
}

struct State<T, U> {
    due: VecDeque<(u64, T)>,
    done: BTreeMap<u64, U>,
    closed: bool,
    /// A thread has panicked; the scope will hand the panic on.
    broken: bool,
}

impl<T, U> Default for Queue<T, U> {
    fn default() -> Queue<T, U> {
        let state = State { due: VecDeque::new(), done: BTreeMap::new(), closed: false, broken: false };
        Queue { state: Mutex::new(state), due: Condvar::new(), done: Condvar::new() }
    }
}

impl<T, U> Queue<T, U> {
    fn lock(&self) -> MutexGuard<'_, State<T, U>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, number: u64, chunk: T) {
        self.lock().due.push_back((number, chunk));
        self.due.notify_one();
    }

    /// The answer to chunk `number`; works on what is due until it is there.
    fn take(&self, number: u64, work: impl Fn(T) -> U) -> Option<U> {
        let mut state = self.lock();
        loop {
            if let Some(answer) = state.done.remove(&number) {
                return Some(answer);
            }
            if state.broken {
                return None;
            }
            match state.due.pop_front() {
                Some((due, chunk)) => {
                    drop(state);
                    let answer = work(chunk);
                    if due == number {
                        return Some(answer);
                    }
                    state = self.lock();
                    state.done.insert(due, answer);
                }
                None => state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn serve(&self, work: impl Fn(T) -> U) {
        let mut broken = Broken(self, true);
        loop {
            let mut state = self.lock();
            let (number, chunk) = loop {
                match state.due.pop_front() {
                    _ if state.closed => {
                        broken.1 = false;
                        return;
                    }
                    Some(due) => break due,
                    None => state = self.due.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(state);
            let answer = work(chunk);
            self.lock().done.insert(number, answer);
            self.done.notify_one();
        }
    }
}

/// Lets the threads end, however the fold ends.
struct Close<'a, T, U>(&'a Queue<T, U>);

impl<T, U> Drop for Close<'_, T, U> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.due.notify_all();
    }
}

/// Wakes the fold when a thread dies, so that it does not wait for an answer that never comes.
struct Broken<'a, T, U>(&'a Queue<T, U>, bool);

impl<T, U> Drop for Broken<'_, T, U> {
    fn drop(&mut self) {
        if self.1 {
            self.0.lock().broken = true;
            self.0.done.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_the_order_of_the_chunks_for_any_number_of_threads() {
        for jobs in [1, 2, 5] {
            let (mut numbers, mut seen) = (0..500u64, Vec::new());
            run(
                jobs,
                || numbers.next(),
                |number| number * 2,
                |double| {
                    seen.push(double);
                    ControlFlow::Continue(())
                },
            );
            assert_eq!(seen, (0..500).map(|number| number * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_fold_that_stops_ends_the_threads() {
        let mut numbers = 0..;
        run(
            3,
            || numbers.next(),
            |number: u64| number,
            |number| {
                if number == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
        assert!(numbers.start < 100);
    }

    #[test]
    #[should_panic = "a scoped thread panicked"]
    fn a_thread_that_panics_does_not_hang_the_fold() {
        let mut numbers = 0..;
        let main = thread::current().id();
        run(
            2,
            || numbers.next(),
            |number: u64| if thread::current().id() == main { number } else { panic!("at {number}") },
            |_| {
                thread::yield_now();
                ControlFlow::Continue(())
            },
        );
    }
}
