//! One HTTP/1.1 connection that costs as little as it can, so that the server is what is measured.

use std::io;
use std::ops::Range;

use tokio::io::AsyncReadExt as _;

use super::endpoint::{Endpoint, Stream};

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Room for an answer at first.
const BUFFER_BYTES: usize = 4_096;

/// A connection that is kept alive.
pub(crate) struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
}

/// An answer; its bytes are its connection's until the next one.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: Range<usize>,
    body: Range<usize>,
}

impl Connection {
    pub(crate) async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        Ok(Self {
            stream: endpoint.connect().await?,
            buffer: Vec::with_capacity(BUFFER_BYTES),
        })
    }

    /// Sends a request and reads its whole answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.send(request).await?;
        self.buffer.clear();
        let head_end = loop {
            self.more().await?;
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = Head::read(&self.buffer[..head_end])?;
        let body = match head.length {
            Length::Bytes(length) => {
                let end = head_end + length;
                while self.buffer.len() < end {
                    self.more().await?;
                }
                head_end..end
            }
            Length::Chunked => self.chunked(head_end).await?,
        };
        Ok(Answer {
            status: head.status,
            head: 0..head_end,
            body,
        })
    }

    /// An answer's head, as text.
    pub(crate) fn head(&self, answer: &Answer) -> String {
        String::from_utf8_lossy(&self.buffer[answer.head.clone()]).into_owned()
    }

    /// An answer's body.
    pub(crate) fn body(&self, answer: &Answer) -> &[u8] {
        &self.buffer[answer.body.clone()]
    }

    async fn more(&mut self) -> io::Result<()> {
        if self.buffer.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other("the answer is too large"));
        }
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Reads chunks up to the last, and puts their content where the first began.
    async fn chunked(&mut self, begin: usize) -> io::Result<Range<usize>> {
        let (mut at, mut end) = (begin, begin);
        loop {
            let line = loop {
                if let Some(length) = find(&self.buffer[at..], b"\r\n") {
                    break length;
                }
                self.more().await?;
            };
            let size = std::str::from_utf8(&self.buffer[at..at + line]).map_err(io::Error::other)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
            let content = at + line + 2;
            while self.buffer.len() < content + size + 2 {
                self.more().await?;
            }
            if size == 0 {
                return Ok(begin..end);
            }
            self.buffer.copy_within(content..content + size, end);
            end += size;
            at = content + size + 2;
        }
    }
}

struct Head {
    status: u16,
    length: Length,
}

enum Length {
    Bytes(usize),
    Chunked,
}

impl Head {
    fn read(head: &[u8]) -> io::Result<Self> {
        let strange = || io::Error::other(String::from_utf8_lossy(head).into_owned());
        let status = head
            .get(9..12)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let status = status
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(strange)?;
        let mut length = Length::Bytes(0);
        for line in head.split(|byte| *byte == b'\n').skip(1) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                continue;
            };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                let value = std::str::from_utf8(value).map_err(io::Error::other)?;
                length = Length::Bytes(value.parse().map_err(io::Error::other)?);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                length = Length::Chunked;
            }
        }
        Ok(Self { status, length })
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A request's bytes.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if method != "GET" {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    /// Answers one request in pieces, as a slow network would.
    async fn answered_by(pieces: &'static [&'static str]) -> (u16, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::plain(listener.local_addr().unwrap());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 512];
            assert!(stream.read(&mut asked).await.unwrap() > 0);
            for piece in pieces {
                stream.write_all(piece.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let client = async {
            let mut connection = Connection::open(&endpoint).await.unwrap();
            let answer = connection.ask(&request("GET", "/", &[], b"")).await.unwrap();
            (answer.status, connection.body(&answer).to_vec())
        };
        let ((), answer) = tokio::join!(server, client);
        answer
    }

    #[tokio::test]
    async fn answers_are_read_whole_with_and_without_chunks() {
        let plain = answered_by(&["HTTP/1.1 201 Created\r\nContent-Le", "ngth: 5\r\n\r\nhe", "llo"]).await;
        assert_eq!(plain, (201, b"hello".to_vec()));
        let chunked = answered_by(&[
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel",
            "\r\n2\r\nlo\r\n0\r\n",
            "\r\n",
        ])
        .await;
        assert_eq!(chunked, (200, b"hello".to_vec()));
        let empty = answered_by(&["HTTP/1.1 204 No Content\r\n\r\n"]).await;
        assert_eq!(empty, (204, Vec::new()));
    }
}
