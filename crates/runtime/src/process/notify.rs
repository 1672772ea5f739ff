//! What a process says of itself: `sd_notify`'s messages.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixDatagram;

/// Longest message that is read, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Longest status that is kept, in characters.
const STATUS_LEN_MAX: usize = 200;

/// The socket at which a release's processes say how they are.
#[derive(Debug)]
pub(super) struct Notify {
    path: PathBuf,
    socket: Arc<UnixDatagram>,
}

impl Notify {
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            socket: Arc::new(UnixDatagram::bind(path)?),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Throws away what an earlier process said.
    pub(super) fn clear(&self) {
        let mut message = [0; MESSAGE_BYTES_MAX];
        while self.socket.try_recv(&mut message).is_ok() {}
    }

    /// Waits for `READY=1`; `status` gets what is said on the way.
    pub(super) async fn ready(&self, status: &mut String) -> io::Result<()> {
        let mut message = vec![0; MESSAGE_BYTES_MAX];
        loop {
            let length = self.socket.recv(&mut message).await?;
            for line in String::from_utf8_lossy(&message[..length]).lines() {
                if line == "READY=1" {
                    return Ok(());
                }
                if let Some(said) = line.strip_prefix("STATUS=") {
                    *status = said.chars().take(STATUS_LEN_MAX).collect();
                }
            }
        }
    }
}
