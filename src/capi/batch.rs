//! Many requests at once.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::os::fd::BorrowedFd;

use super::guard::{Failure, guard};
use crate::batch::Batch;
use crate::error::Code;

thread_local! {
    /// The batch that this thread gathers, and its descriptor.
    static GATHERED: RefCell<Option<(c_int, Batch)>> = const { RefCell::new(None) };
}

/// Keeps a message for a batch of this descriptor; `None` if this thread gathers none.
pub(super) fn keep(so: c_int, message: &[u8]) -> Option<Result<c_int, Failure>> {
    GATHERED
        .try_with(|gathered| {
            let mut gathered = gathered.try_borrow_mut().ok()?;
            let (_, batch) = gathered.as_mut().filter(|(fd, _)| *fd == so)?;
            let kept = batch.push(message).map_err(|error| Failure::Errno(error.rule.errno()));
            Some(kept.map(|()| message.len() as c_int))
        })
        .ok()
        .flatten()
}

/// Begins a batch: what this thread sends on `so` from now on with any of the pfkey_send functions is kept, in order,
/// until pfkey_batch_end sends it. Those functions return as if it had been sent.
///
/// Returns 0; -1 with a code otherwise (2 if this thread has begun a batch already).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pfkey_batch_begin(so: c_int) -> c_int {
    guard(|| {
        if so < 0 {
            return Err(Failure::Errno(libc::EBADF));
        }
        GATHERED.with(|gathered| {
            let mut gathered = gathered.borrow_mut();
            if gathered.is_some() {
                return Err(Code::InvalidArgument.into());
            }
            *gathered = Some((so, Batch::default()));
            Ok(0)
        })
    })
}

/// Does all requests of this thread's batch, in order, and reads their answers. `failed`, if not NULL, is called with
/// `arg` for each request that the key engine refused: its place in the batch, from 0, and the errno. The others are done
/// all the same. The batch is over then, however it ended; keys in it are wiped.
///
/// What else arrives on the descriptor meanwhile is read and lost, so use one that is registered for nothing.
///
/// Returns the number of requests that failed; -1 with a code if there is no batch (2) or sending or receiving failed
/// (26): how many requests were done is not known then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pfkey_batch_end(
    failed: Option<extern "C" fn(place: usize, errno_of_it: c_int, arg: *mut c_void)>,
    arg: *mut c_void,
) -> c_int {
    guard(|| {
        let gathered = GATHERED.with(|gathered| gathered.borrow_mut().take());
        let Some((so, batch)) = gathered else { return Err(Code::InvalidArgument.into()) };
        // SAFETY: not negative; the caller keeps it open during this call.
        let fd = unsafe { BorrowedFd::borrow_raw(so) };
        let failures = batch.send(fd, |place, errno| {
            if let Some(failed) = failed {
                failed(place, errno as c_int, arg);
            }
        });
        let failures = failures.map_err(|errno| Failure::Errno(errno as i32))?;
        Ok(c_int::try_from(failures).unwrap_or(c_int::MAX))
    })
}

/// Throws this thread's batch away, if there is one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pfkey_batch_drop() {
    guard(|| {
        GATHERED.with(|gathered| drop(gathered.borrow_mut().take()));
        Ok(())
    });
}
