//! Iteration by pages, so that no lock is held and no session is loaded while the caller works.

use std::collections::VecDeque;

use crate::log::{ReadError, Rows};

/// Rows of `fetch`, which gives the page after a row (the first page for `None`); an empty page is the end.
pub(crate) fn pages<'a, T: Clone + 'a>(
    mut fetch: impl FnMut(Option<&T>) -> Result<Vec<T>, ReadError> + 'a,
) -> Rows<'a, T> {
    let mut page = VecDeque::new();
    let mut last = None;
    let mut done = false;
    Box::new(std::iter::from_fn(move || {
        if page.is_empty() && !done {
            match fetch(last.as_ref()) {
                Ok(rows) => page.extend(rows),
                Err(error) => {
                    done = true;
                    return Some(Err(error));
                }
            }
            done = page.is_empty();
        }
        let row: T = page.pop_front()?;
        if page.is_empty() {
            last = Some(row.clone());
        }
        Some(Ok(row))
    }))
}
