//! A receiver of webhooks' messages and of spans that keeps every byte it is sent.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Takes whatever is posted.
pub(super) struct Sink {
    pub(super) address: SocketAddr,
    kept: Arc<Mutex<Vec<u8>>>,
}

impl Sink {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, kept) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
        let keeps = Arc::clone(&kept);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = Arc::clone(&keeps);
                std::thread::spawn(move || drop(serve(stream, &kept)));
            }
        });
        Self { address, kept }
    }

    /// All that came.
    pub(super) fn kept(&self) -> Vec<u8> {
        self.kept.lock().unwrap().clone()
    }

    /// Whether a text came.
    pub(super) fn has(&self, text: &str) -> bool {
        let kept = self.kept.lock().unwrap();
        kept.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

fn serve(stream: TcpStream, kept: &Mutex<Vec<u8>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let from = head.len();
            if stream.read_line(&mut head)? == 0 {
                return Ok(());
            }
            let line = head[from..].trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(std::io::Error::other)?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let mut kept = kept.lock().unwrap();
        kept.extend(head.as_bytes());
        kept.extend(body);
        drop(kept);
        stream
            .get_mut()
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}
