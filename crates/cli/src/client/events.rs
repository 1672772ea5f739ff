//! Server-Sent Events, gone on with where a connection broke.

use std::collections::VecDeque;

use super::{ApiError, Client, Query};

/// Longest event that is read, in bytes.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// An event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its number; empty where the server gave none.
    pub(crate) id: String,
    /// Its type.
    pub(crate) kind: String,
    /// Its data: JSON.
    pub(crate) data: String,
}

/// A stream of events.
pub(crate) struct Events {
    response: reqwest::Response,
    address: String,
    lines: Lines,
    ready: VecDeque<Event>,
}

impl Client {
    /// Begins to listen; `after` goes on after an event's number.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn events(
        &self,
        path: &[&str],
        query: Query<'_>,
        after: Option<&str>,
    ) -> Result<Events, ApiError> {
        let url = self.url(path, query)?;
        let request = self.http.get(url).header("accept", "text/event-stream");
        let mut request = self.authorised(request).await?;
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let broken = |error| ApiError::of_transport(self.address(), &error);
        let response = request.send().await.map_err(broken)?;
        let status = response.status();
        if !status.is_success() {
            let headers = response.headers().clone();
            let body = response.bytes().await.map_err(broken)?;
            return Err(ApiError::refused(status, &headers, &body));
        }
        Ok(Events {
            response,
            address: self.address().to_owned(),
            lines: Lines::default(),
            ready: VecDeque::new(),
        })
    }
}

impl Events {
    /// The next event; `None` where the server ended the stream.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, ApiError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let chunk = self.response.chunk().await;
            let Some(chunk) = chunk.map_err(|error| ApiError::of_transport(&self.address, &error))? else {
                return Ok(None);
            };
            self.ready.extend(self.lines.take(&chunk));
            if self.lines.held() > EVENT_BYTES_MAX {
                return Err(ApiError::Unexpected {
                    url: self.address.clone(),
                    what: "an endless event".to_owned(),
                });
            }
        }
    }
}

/// Reads lines as the WHATWG's standard says.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    event: Event,
}

impl Lines {
    fn held(&self) -> usize {
        self.rest.len() + self.event.data.len()
    }

    fn take(&mut self, chunk: &[u8]) -> Vec<Event> {
        self.rest.extend_from_slice(chunk);
        let mut events = Vec::new();
        while let Some(end) = self.rest.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            events.extend(self.line(line.trim_end_matches(['\n', '\r'])));
        }
        events
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return (!event.data.is_empty()).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut self.event.id),
            "event" => value.clone_into(&mut self.event.kind),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // Comments are signs of life.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text =
            ":\n\nid: 7\nevent: StepStarted\nretry: 2000\ndata: {\"a\":1}\n\ndata: x\r\ndata: y\r\n\r\n";
        let wanted = [
            Event {
                id: "7".to_owned(),
                kind: "StepStarted".to_owned(),
                data: "{\"a\":1}".to_owned(),
            },
            Event {
                data: "x\ny".to_owned(),
                ..Event::default()
            },
        ];
        assert_eq!(Lines::default().take(text.as_bytes()), wanted);
        let mut lines = Lines::default();
        let one_by_one: Vec<Event> = text
            .as_bytes()
            .chunks(1)
            .flat_map(|byte| lines.take(byte))
            .collect();
        assert_eq!(one_by_one, wanted);
    }
}
