//! The session's messages around reports and specs.

use hotswap_core::ids::RolloutId;
use hotswap_core::report::NodeReport;
use hotswap_core::spec::{MODULES_PER_NODE_MAX, NodeSpec};
use hotswap_core::time::Millis;

use super::parts::{digest_in, digest_out, fleet_in, list_in, module_in, release_in, release_out, required};
use super::{INTERVALS_MAX, VETOES_MAX};
use crate::malformed::{At as _, Fault, Malformed};
use crate::message::{Ack, AckedInterval, AckedVeto, FetchRequest, ServerMessage, Settings};
use crate::pb;

// An acknowledgement fits into a message whatever a report held.
const _: () = assert!(VETOES_MAX >= MODULES_PER_NODE_MAX && INTERVALS_MAX >= MODULES_PER_NODE_MAX);

impl From<&NodeReport> for pb::AgentMessage {
    fn from(report: &NodeReport) -> Self {
        Self {
            message: Some(pb::agent_message::Message::Report(report.into())),
        }
    }
}

impl pb::AgentMessage {
    /// What it says; `None` is a message that this version doesn't know: a newer agent's, to be passed over.
    pub fn read(self) -> Result<Option<NodeReport>, Malformed> {
        use pb::agent_message::Message;
        Ok(match self.message {
            None => None,
            Some(Message::Report(report)) => Some(NodeReport::try_from(report).at("report")?),
        })
    }
}

impl From<&ServerMessage> for pb::ServerMessage {
    fn from(message: &ServerMessage) -> Self {
        use pb::server_message::Message;
        let message = match message {
            ServerMessage::Spec(spec) => Message::Spec(spec.into()),
            ServerMessage::Ack(ack) => Message::Ack(ack_out(ack)),
            ServerMessage::Settings(settings) => Message::Settings(pb::Settings {
                fleet: settings.fleet.0.as_bytes().to_vec(),
                heartbeat_ms: settings.heartbeat.0,
                renew_in_ms: settings.renew_in.map(|renew_in| renew_in.0),
            }),
        };
        Self {
            message: Some(message),
        }
    }
}

impl pb::ServerMessage {
    /// What it says; `None` is a message that this version doesn't know: a newer server's, to be passed over.
    pub fn read(self) -> Result<Option<ServerMessage>, Malformed> {
        use pb::server_message::Message;
        Ok(match self.message {
            None => None,
            Some(Message::Spec(spec)) => Some(ServerMessage::Spec(NodeSpec::try_from(spec).at("spec")?)),
            Some(Message::Ack(ack)) => Some(ServerMessage::Ack(ack_in(ack).at("ack")?)),
            Some(Message::Settings(settings)) => {
                Some(ServerMessage::Settings(settings_in(&settings).at("settings")?))
            }
        })
    }
}

fn ack_out(ack: &Ack) -> pb::Ack {
    let veto = |veto: &AckedVeto| pb::AckedVeto {
        module: veto.module.to_string(),
        rollout: veto.rollout.0,
        release: Some(release_out(&veto.release)),
    };
    let interval = |interval: &AckedInterval| pb::AckedInterval {
        module: interval.module.to_string(),
        rollout: interval.rollout.0,
        number: interval.number,
    };
    pb::Ack {
        seq: ack.seq,
        vetoes: ack.vetoes.iter().map(veto).collect(),
        intervals: ack.intervals.iter().map(interval).collect(),
    }
}

fn ack_in(ack: pb::Ack) -> Result<Ack, Malformed> {
    Ok(Ack {
        seq: ack.seq,
        vetoes: list_in("vetoes", ack.vetoes, VETOES_MAX, |veto: pb::AckedVeto| {
            Ok::<_, Malformed>(AckedVeto {
                module: module_in(&veto.module).at("module")?,
                rollout: RolloutId(veto.rollout),
                release: required("release", veto.release, release_in)?,
            })
        })?,
        intervals: list_in(
            "intervals",
            ack.intervals,
            INTERVALS_MAX,
            |interval: pb::AckedInterval| {
                Ok::<_, Malformed>(AckedInterval {
                    module: module_in(&interval.module).at("module")?,
                    rollout: RolloutId(interval.rollout),
                    number: interval.number,
                })
            },
        )?,
    })
}

fn settings_in(settings: &pb::Settings) -> Result<Settings, Malformed> {
    if settings.heartbeat_ms == 0 {
        return Err(Fault::Missing.at("heartbeat_ms"));
    }
    Ok(Settings {
        fleet: fleet_in(&settings.fleet).at("fleet")?,
        heartbeat: Millis(settings.heartbeat_ms),
        renew_in: settings.renew_in_ms.map(Millis),
    })
}

impl From<&FetchRequest> for pb::FetchRequest {
    fn from(request: &FetchRequest) -> Self {
        Self {
            digest: digest_out(&request.digest),
            offset: request.offset,
            signature: request.signature,
        }
    }
}

impl TryFrom<pb::FetchRequest> for FetchRequest {
    type Error = Malformed;
    fn try_from(request: pb::FetchRequest) -> Result<Self, Malformed> {
        Ok(Self {
            digest: digest_in(&request.digest).at("digest")?,
            offset: request.offset,
            signature: request.signature,
        })
    }
}
