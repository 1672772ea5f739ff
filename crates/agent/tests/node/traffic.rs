//! A client that counts what it gets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;

pub(crate) type HttpClient = Client<HttpConnector, Empty<Bytes>>;

pub(crate) fn client() -> HttpClient {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Status and body of one request; 0 and the error if there was no answer.
pub(crate) async fn get(client: &HttpClient, addr: SocketAddr, path: &str) -> (u16, String) {
    let uri = format!("http://{addr}{path}").parse().unwrap();
    match client.get(uri).await {
        Ok(response) => {
            let status = response.status().as_u16();
            match response.into_body().collect().await {
                Ok(body) => (status, String::from_utf8_lossy(&body.to_bytes()).into_owned()),
                Err(error) => (0, format!("{error:?}")),
            }
        }
        Err(error) => (0, format!("{error:?}")),
    }
}

/// Requests for `/ok` on some connections at once, until it is ended.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<BTreeMap<(u16, String), u64>>,
}

impl Traffic {
    pub(crate) fn start(addr: SocketAddr, connections: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let stop = Arc::clone(&stop);
            tasks.spawn(async move {
                let (client, mut answers) = (client(), BTreeMap::new());
                while !stop.load(Ordering::Relaxed) {
                    *answers.entry(get(&client, addr, "/ok").await).or_insert(0) += 1;
                }
                answers
            });
        }
        Self { stop, tasks }
    }

    /// How often each answer came.
    pub(crate) async fn end(self) -> BTreeMap<(u16, String), u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        for answers in self.tasks.join_all().await {
            for (answer, count) in answers {
                *all.entry(answer).or_insert(0) += count;
            }
        }
        all
    }
}
