//! The two system calls, and where the kernel's files are.

use std::ffi::CString;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// What loads and unloads, so that tests need neither a privilege nor a kernel to spare.
pub(super) trait System: Debug + Send + Sync + 'static {
    /// Loads a module file with parameters as `insmod` is given them.
    fn load(&self, file: &Path, parameters: &str) -> io::Result<()>;

    /// Unloads a module that nobody uses.
    fn unload(&self, module: &str) -> io::Result<()>;

    /// Where a file such as `/sys/module` really is.
    fn path(&self, path: &str) -> PathBuf;
}

/// The machine's kernel.
#[derive(Debug)]
pub(super) struct Linux;

impl System for Linux {
    fn load(&self, file: &Path, parameters: &str) -> io::Result<()> {
        let file = File::open(file).map_err(|error| {
            let path = file.display();
            io::Error::new(error.kind(), format!("its file {path} can't be opened: {error}"))
        })?;
        let parameters = CString::new(parameters)?;
        #[expect(
            unsafe_code,
            reason = "the system call has no safe form that this crate may use"
        )]
        // SAFETY: the descriptor is open and the text ends with a zero, both until the call has returned; the kernel
        // copies what it needs.
        let result = unsafe {
            libc::syscall(
                libc::SYS_finit_module,
                file.as_raw_fd(),
                parameters.as_ptr(),
                0 as libc::c_int,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn unload(&self, module: &str) -> io::Result<()> {
        let module = CString::new(module)?;
        #[expect(
            unsafe_code,
            reason = "the system call has no safe form that this crate may use"
        )]
        // SAFETY: the text ends with a zero and lives until the call has returned. Without waiting, so that one in use
        // is refused.
        let result = unsafe { libc::syscall(libc::SYS_delete_module, module.as_ptr(), libc::O_NONBLOCK) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(path)
    }
}
