//! What the kernel's errors mean where modules are loaded.

use std::io;

/// What the kernel's answer to a load means.
pub(super) fn told(error: &io::Error) -> String {
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
        _ => "its own start failed",
    };
    format!("{means} ({error})")
}
