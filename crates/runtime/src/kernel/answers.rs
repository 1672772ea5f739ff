//! What the kernel's errors mean where modules are loaded.

use std::io;

/// What the kernel's answer to a load means.
pub(super) fn told(error: &io::Error) -> String {
    if error.raw_os_error().is_none() {
        // It never came to the kernel.
        return error.to_string();
    }
    let means = match error.raw_os_error() {
        Some(libc::EKEYREJECTED | libc::ENOKEY) => {
            "this node's kernel loads only modules with a signature by a key that it trusts, and this file has none that holds; sign it \
             with the kernel's sign-file by such a key before it is packed"
        }
        Some(libc::EBADMSG | libc::ENOPKG) => {
            "this node's kernel can't make sense of the file's signature; sign it anew with sha256 or stronger"
        }
        Some(libc::EPERM) => {
            "this kernel loads no modules: they are disabled, it is locked down, or the agent lacks CAP_SYS_MODULE"
        }
        Some(libc::EEXIST) => "a module of this name is loaded already",
        Some(libc::ENOENT) => "it uses a symbol or a parameter that this kernel hasn't; its log says which",
        Some(libc::ENOEXEC) => "the file is not built for this kernel; its log says how it differs",
        Some(libc::EAGAIN) => "it is in use",
        Some(libc::EINVAL) => {
            "its own start failed, or a parameter's value was refused as invalid; the kernel's log says which"
        }
        Some(libc::ENOMEM) => "the kernel has no memory for it, or its own start found none",
        Some(libc::EBUSY) => {
            "what it needs is taken, or a module of this name is just being loaded or unloaded; the kernel's log says which"
        }
        _ => "its own start failed",
    };
    format!("{means} ({error})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_gone_is_not_mistaken_for_what_the_kernel_answers() {
        let from_kernel = |code| told(&io::Error::from_raw_os_error(code));
        assert!(from_kernel(libc::ENOENT).starts_with("it uses a symbol"));
        assert!(from_kernel(libc::EINVAL).contains("a parameter's value was refused"));
        assert!(from_kernel(libc::ENOMEM).contains("no memory"));
        assert!(from_kernel(libc::EBUSY).contains("what it needs is taken"));
        assert!(from_kernel(libc::ENODEV).starts_with("its own start failed (No such device"));
        let gone = super::super::system::System::load(
            &super::super::system::Linux,
            std::path::Path::new("/nowhere/x.ko"),
            "",
        );
        let gone = told(&gone.unwrap_err());
        assert!(
            gone.starts_with("its file /nowhere/x.ko can't be opened: No such file"),
            "{gone}"
        );
    }
}
