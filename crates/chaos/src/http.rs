//! A client that sends exactly what it is told, once, and says what came back.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Most bytes of a head that are read.
const HEAD_BYTES_MAX: u64 = 1 << 20;

/// One connection that is kept alive.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    /// When it was made.
    pub(crate) since: Instant,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// What `x-hotswap-release` says.
    pub(crate) release: String,
    /// What `retry-after` says, in s.
    pub(crate) retry_after: Option<u64>,
    pub(crate) replayed: bool,
    pub(crate) body: Vec<u8>,
    /// Whether the other side keeps the connection.
    pub(crate) keep_alive: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(400).collect()
    }
}

impl Connection {
    pub(crate) fn open(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let since = Instant::now();
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
            since,
        })
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.get_mut().write_all(request)?;
        self.read()
    }

    /// Reads an answer.
    pub(crate) fn read(&mut self) -> io::Result<Answer> {
        let mut head = (&mut self.stream).take(HEAD_BYTES_MAX);
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut answer = Answer {
            status: status.ok_or_else(|| io::Error::other(format!("no status: {line:?}")))?,
            keep_alive: true,
            ..Answer::default()
        };
        let (mut length, mut chunked) = (0_usize, false);
        loop {
            line.clear();
            if head.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().map_err(io::Error::other)?,
                "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
                "connection" => answer.keep_alive = !value.eq_ignore_ascii_case("close"),
                "x-hotswap-release" => value.clone_into(&mut answer.release),
                "retry-after" => answer.retry_after = value.parse().ok(),
                "idempotent-replayed" => answer.replayed = value == "true",
                _ => {}
            }
        }
        if chunked {
            self.read_chunks(&mut answer.body)?;
        } else {
            if length > BODY_BYTES_MAX {
                return Err(io::Error::other("the answer is too large"));
            }
            answer.body.resize(length, 0);
            self.stream.read_exact(&mut answer.body)?;
        }
        Ok(answer)
    }

    fn read_chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let start = body.len();
            if start + size > BODY_BYTES_MAX {
                return Err(io::Error::other("the answer is too large"));
            }
            body.resize(start + size, 0);
            self.stream.read_exact(&mut body[start..])?;
            self.stream.read_exact(&mut [0; 2])?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        self.stream.get_mut()
    }
}

/// A request's bytes.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: chaos\r\n");
    for (name, value) in headers {
        request.push_str(name);
        request.push_str(": ");
        request.push_str(value);
        request.push_str("\r\n");
    }
    if method != "GET" {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    request
}
