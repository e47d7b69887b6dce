//! Many requests at once.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use super::error;
use super::guard::{Failure, cancellation_point, guard};
use crate::batch::Batch;
use crate::error::Code;
use crate::wire::xfrm::Words;

/// The batch that a thread gathers, and its descriptor.
struct Gathered {
    so: c_int,
    /// What `so` was when the batch was begun: the number may be given to another.
    file: Option<(u64, u64)>,
    batch: RefCell<Batch>,
}

/// The threads' batches, as thread-specific data of the C library: a thread that ends wipes its own. A Rust thread-local would
/// allocate in every thread that sends, and could not say that there is no memory.
mod own {
    use super::{AtomicI64, Code, Failure, Gathered, SeqCst, c_int, c_void};

    /// The key, or `NONE` before the process's first batch.
    static KEY: AtomicI64 = AtomicI64::new(NONE);
    const NONE: i64 = -1;

    fn known() -> Option<libc::pthread_key_t> {
        libc::pthread_key_t::try_from(KEY.load(SeqCst)).ok()
    }

    fn key() -> Result<libc::pthread_key_t, Failure> {
        if let Some(key) = known() {
            return Ok(key);
        }
        let mut key = 0;
        // SAFETY: a live variable takes the key.
        failed(unsafe { libc::pthread_key_create(&raw mut key, Some(thread_ends)) })?;
        match KEY.compare_exchange(NONE, key.into(), SeqCst, SeqCst) {
            Ok(_) => Ok(key),
            Err(others) => {
                // SAFETY: made above, and known to nobody.
                unsafe { libc::pthread_key_delete(key) };
                Ok(others as libc::pthread_key_t)
            }
        }
    }

    fn failed(errno: c_int) -> Result<(), Failure> {
        if errno == 0 { Ok(()) } else { Err(Failure::errno(crate::wire::Errno::from_raw(errno))) }
    }

    /// This thread's batch, or NULL.
    pub(super) fn get() -> *mut Gathered {
        // SAFETY: the key is one that was made.
        known().map_or(std::ptr::null_mut(), |key| unsafe { libc::pthread_getspecific(key) }.cast())
    }

    /// Puts a batch in its place.
    pub(super) fn put(gathered: Gathered) -> Result<(), Failure> {
        let key = key()?;
        // SAFETY: any size may be asked for.
        let place = unsafe { libc::malloc(size_of::<Gathered>()) }.cast::<Gathered>();
        if place.is_null() {
            return Err(Code::NoBuffers.into());
        }
        // SAFETY: malloc's blocks have room and alignment for it.
        unsafe { place.write(gathered) };
        // SAFETY: the key was made.
        failed(unsafe { libc::pthread_setspecific(key, place.cast()) }).inspect_err(|_| {
            // SAFETY: written above, and nobody else has it.
            drop(unsafe { out_of(place) });
        })
    }

    /// Takes this thread's batch out of its place; `None` if there is none, or it is in use: a signal handler has come upon it.
    pub(super) fn take() -> Option<Gathered> {
        let place = get();
        // SAFETY: NULL, or what this thread has put there, and nobody takes out meanwhile.
        unsafe { place.as_ref() }?.batch.try_borrow_mut().ok()?;
        // SAFETY: there is a batch, so its key was made. NULL is stored without a block of memory.
        unsafe { libc::pthread_setspecific(known()?, std::ptr::null()) };
        // SAFETY: what `put` made, which nobody finds any more.
        Some(unsafe { out_of(place) })
    }

    /// Takes a batch out of its block, which is malloc's, and frees that.
    unsafe fn out_of(place: *mut Gathered) -> Gathered {
        // SAFETY: there is one, and nobody reads it again.
        let gathered = unsafe { place.read() };
        // SAFETY: the block is malloc's.
        unsafe { libc::free(place.cast()) };
        gathered
    }

    unsafe extern "C" fn thread_ends(place: *mut c_void) {
        // SAFETY: what `put` made, which nobody uses any more.
        drop(unsafe { out_of(place.cast()) });
    }

    /// A library that is unloaded takes `thread_ends` with it.
    extern "C" fn unloaded() {
        if let Ok(key) = libc::pthread_key_t::try_from(KEY.swap(NONE, SeqCst)) {
            // SAFETY: made by `key`.
            unsafe { libc::pthread_key_delete(key) };
        }
    }

    #[used]
    #[unsafe(link_section = ".fini_array")]
    static DESTRUCTOR: extern "C" fn() = unloaded;
}

/// Keeps a message for a batch of this descriptor; `None` if this thread gathers none.
pub(super) fn keep(so: c_int, message: &[u8]) -> Option<Result<c_int, Failure>> {
    // SAFETY: NULL, or what this thread has put there; it is not taken out while this call runs.
    let gathered = unsafe { own::get().as_ref() }.filter(|gathered| gathered.so == so)?;
    let kept = gathered.batch.try_borrow_mut().ok()?.push(message);
    Some(kept.map(|()| message.len() as c_int).map_err(Failure::errno))
}

/// Wipes this thread's batch if it is for this descriptor, which will be closed: the next with its number could be anybody's.
pub(super) fn closing(so: c_int) {
    // SAFETY: NULL, or what this thread has put there; it is not taken out while it is looked at.
    if unsafe { own::get().as_ref() }.is_some_and(|gathered| gathered.so == so) {
        drop(own::take());
    }
}

/// Begins a batch: what this thread sends on `so` from now on with any of the pfkey_send functions is kept, in order,
/// until pfkey_batch_end sends it. Those functions return as if it had been sent. pfkey_close(so) throws the batch away.
///
/// Returns 0; -1 with a code otherwise (2 if this thread has begun a batch already).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_batch_begin(so: c_int) -> c_int {
    guard(|| {
        if so < 0 {
            return Err(Failure::Errno(libc::EBADF));
        }
        if !own::get().is_null() {
            return Err(Code::InvalidArgument.into());
        }
        own::put(Gathered { so, file: crate::socket::file_behind(so), batch: RefCell::default() })?;
        Ok(0)
    })
}

/// Does all requests of this thread's batch, in order, and reads their answers. `failed`, if not NULL, is called with
/// `arg` for each request that the key engine refused: its place in the batch, from 0, and the errno; ipsec_strerror()
/// says meanwhile why, where the session is shown that (pfkey_show_xfrm). The others are done all the same. The batch is
/// over then, however it ended; keys in it are wiped.
///
/// What waits on the descriptor before is dropped, and what else arrives there meanwhile is read and lost, so use one that is
/// registered for nothing. It must not be promiscuous (pfkey_send_promisc_toggle): copies of the requests would be taken for
/// their answers. `failed` must not use it, nor leave by longjmp or an exception.
///
/// Returns the number of requests that failed; -1 with a code if there is no batch (2), no memory (21: nothing was sent) or
/// sending or receiving failed (26): how many requests were done is not known then, but for EBADF, where the descriptor was
/// closed after pfkey_batch_begin, and may be another's by now: nothing was sent.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_batch_end(
    failed: Option<extern "C" fn(place: usize, errno_of_it: c_int, arg: *mut c_void)>,
    arg: *mut c_void,
) -> c_int {
    cancellation_point(|| {
        let Some(Gathered { so, file, batch }) = own::take() else { return Err(Code::InvalidArgument.into()) };
        if file.is_none() || crate::socket::file_behind(so) != file {
            return Err(Failure::Errno(libc::EBADF));
        }
        // SAFETY: not negative; the caller keeps it open during this call.
        let fd = unsafe { BorrowedFd::borrow_raw(so) };
        let failures = batch.into_inner().send(fd, |place, errno, why| {
            if let Some(failed) = failed {
                let errno = errno.to_raw();
                error::set_errno(errno);
                if let Some(why) = why {
                    error::keep_text(format_args!("{}: {why}", Words(&error::system_text(errno))));
                }
                failed(place, errno, arg);
            }
        });
        Ok(c_int::try_from(failures.map_err(Failure::errno)?).unwrap_or(c_int::MAX))
    })
}

/// Throws this thread's batch away, if there is one.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_batch_drop() {
    guard(|| {
        drop(own::take());
        Ok(())
    });
}
