//! The way in and out: HTTP/1.1 on the socket that the node hands over as descriptor 3, one thread for each connection.
//! The standard library alone; a server of your own takes the same socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use crate::Answer;

/// The first socket that is handed over, as systemd does it.
const SOCKET_FD: i32 = 3;
/// Largest head and body that are read, in bytes; the node has limits of its own, too.
const HEAD_BYTES_MAX: u64 = 64 << 10;
const BODY_BYTES_MAX: usize = 64 << 20;

pub fn serve(answer: fn(&str, &str, &[u8]) -> Answer) -> io::Result<()> {
    let is_ours = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    if !is_ours {
        return Err(io::Error::other("no socket was handed over: a node starts this, by `hotswap deploy`"));
    }
    // SAFETY: LISTEN_PID says that this descriptor is a listening socket of this process, and nobody else takes it.
    let listener = unsafe { UnixListener::from_raw_fd(SOCKET_FD) };
    if let Ok(socket) = std::env::var("NOTIFY_SOCKET") {
        UnixDatagram::unbound()?.send_to(b"READY=1", socket)?;
    }
    for connection in listener.incoming() {
        let connection = connection?;
        std::thread::spawn(move || {
            // A connection that breaks ends alone.
            let _ = converse(&connection, answer);
        });
    }
    Ok(())
}

fn converse(connection: &UnixStream, answer: fn(&str, &str, &[u8]) -> Answer) -> io::Result<()> {
    let (mut reader, mut writer) = (BufReader::new(connection), connection);
    while let Some((method, path, body)) = request(&mut reader)? {
        let path = path.split('?').next().unwrap_or_default();
        let Answer { status, body } = answer(&method, path, &body);
        let length = body.len();
        let shown = if method == "HEAD" { "" } else { &body };
        let head = format!("HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        writer.write_all((head + shown).as_bytes())?;
    }
    Ok(())
}

/// The next request; `None` at the connection's end.
fn request(reader: &mut impl BufRead) -> io::Result<Option<(String, String, Vec<u8>)>> {
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let (mut first, mut length, mut is_chunked) = (String::new(), 0, false);
    let mut head = reader.by_ref().take(HEAD_BYTES_MAX);
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return if first.is_empty() { Ok(None) } else { Err(broken()) };
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().map_err(|_| broken())?;
            }
            Some((name, _)) if name.eq_ignore_ascii_case("transfer-encoding") => is_chunked = true,
            _ if first.is_empty() => line.clone_into(&mut first),
            _ => {}
        }
    }
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = words.next().zip(words.next()).ok_or_else(broken)?;
    let mut body = Vec::new();
    while is_chunked {
        let mut size = String::new();
        reader.by_ref().take(HEAD_BYTES_MAX).read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| broken())?;
        piece(reader, &mut body, size)?;
        let mut end = [0; 2];
        reader.read_exact(&mut end)?;
        is_chunked = size > 0;
    }
    piece(reader, &mut body, length)?;
    Ok(Some((method, path, body)))
}

fn piece(reader: &mut impl Read, body: &mut Vec<u8>, length: usize) -> io::Result<()> {
    let begun = body.len();
    if length > BODY_BYTES_MAX.saturating_sub(begun) {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    body.resize(begun + length, 0);
    reader.read_exact(&mut body[begun..])
}
