//! One agent's session.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hotswap_wire::pb::agent_service_client::AgentServiceClient;
use hotswap_wire::{MESSAGE_BYTES_MAX, ServerMessage, pb};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::node::Node;
use super::swarm::Shared;

/// Reports under way at once, as an agent has them.
const REPORTS_QUEUED_MAX: usize = 4;

/// A session that the server has accepted.
pub(super) struct Session {
    node: Node,
    reports: mpsc::Sender<pb::AgentMessage>,
    messages: Streaming<pb::ServerMessage>,
}

impl Session {
    /// Says everything once, and waits for the server's first word.
    pub(super) async fn open(channel: Channel, mut node: Node) -> Result<Self> {
        let mut client = AgentServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (reports, outgoing) = mpsc::channel(REPORTS_QUEUED_MAX);
        reports.send(node.hello()).await?;
        let mut messages = client.session(ReceiverStream::new(outgoing)).await?.into_inner();
        let first = messages.message().await?.context("the server hung up")?;
        match first.read()? {
            Some(ServerMessage::Settings(_)) => Ok(Self {
                node,
                reports,
                messages,
            }),
            other => bail!("a session begins with settings, not {other:?}"),
        }
    }

    /// Does what an agent does, until the server hangs up: takes specs over, reports, and beats.
    pub(super) async fn run(mut self, shared: Arc<Shared>) -> Result<()> {
        let mut pace = shared.pace();
        let mut beat = self.node.first_beat(*pace.borrow());
        loop {
            let far = Instant::now() + Duration::from_secs(3_600);
            tokio::select! {
                message = self.messages.message() => {
                    let message = message?.context("the server hung up")?;
                    if let Some(ServerMessage::Spec(spec)) = message.read()? {
                        shared.told(&spec, &mut self.node);
                        self.reports.send(self.node.take_over(&spec)).await?;
                    }
                }
                changed = pace.changed() => {
                    changed?;
                    beat = self.node.first_beat(*pace.borrow());
                }
                () = sleep_until(beat.unwrap_or(far)), if beat.is_some() => {
                    self.reports.send(self.node.beat()).await?;
                    shared.beaten();
                    beat = beat.zip(*pace.borrow()).map(|(beat, pace)| beat + pace);
                }
            }
        }
    }
}
