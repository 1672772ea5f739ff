//! What a heartbeat costs: its bytes, and the server's time to decode it and to take it in, in a small fleet and in a
//! large one.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use hotswap_core::apply::apply;
use hotswap_core::event::{Event, Logged};
use hotswap_core::ids::{ModuleName, NodeId};
use hotswap_core::observe::Observations;
use hotswap_core::policy::Environment;
use hotswap_core::report::NodeReport;
use hotswap_core::state::State;
use hotswap_core::time::{CoreTime, Now, WallTime};
use hotswap_wire::pb;
use prost::Message as _;

use super::Setting;
use crate::agents::heartbeat_bytes;
use crate::load::least;
use crate::report::{Figure, Report, Target};

/// Modules with requests on each node.
const MODULES: usize = 10;
const SMALL: usize = 38;

pub(super) fn measure(setting: &Setting, report: &mut Report) {
    report.section("A heartbeat, in the server's own code");
    let large = setting.pick(2_000, 10_000);
    let (mut fleets, mut costs) = ([Fleet::new(SMALL), Fleet::new(large)], [Vec::new(), Vec::new()]);
    for _ in 0..setting.pick(3, 7) {
        // In turn, and as many reports of each.
        for (fleet, costs) in fleets.iter_mut().zip(&mut costs) {
            costs.push(fleet.round(large));
        }
    }
    let [full, beat] = fleets[1].sizes;
    report.add(Figure::new(
        format!("bytes of a full report of {MODULES} modules, once a session"),
        full as f64,
        "B",
    ));
    report.add(Figure::new("bytes of a heartbeat", beat as f64, "B"));
    let [small, big] = costs.map(|rounds| {
        let (decode, absorb): (Vec<f64>, Vec<f64>) = rounds.into_iter().unzip();
        (least(&decode), least(&absorb))
    });
    report.add(Figure::new("to decode one", big.0, "µs"));
    report.add(Figure::new(
        format!("to take one in, {SMALL} nodes"),
        small.1,
        "µs",
    ));
    report.add(Figure::new(format!("to take one in, {large} nodes"), big.1, "µs"));
    report.add(
        Figure::ratio(
            "report 38/10000",
            format!("a report at {SMALL} nodes, of one at {large}"),
            (small.0 + small.1) / (big.0 + big.1),
        )
        .wants(Target::AtLeast(0.5)),
    );
}

struct Fleet {
    state: State,
    obs: Observations,
    beats: Vec<Vec<u8>>,
    sizes: [usize; 2],
    seq: u64,
}

impl Fleet {
    fn new(nodes: usize) -> Self {
        let names: Vec<ModuleName> = (0..MODULES)
            .map(|n| {
                format!("payment-processor-{n}")
                    .parse()
                    .expect("a literal name is valid")
            })
            .collect();
        let mut fleet = Self {
            state: State::default(),
            obs: Observations::new(now(1)),
            beats: Vec::new(),
            sizes: [0; 2],
            seq: 1,
        };
        fleet.happen(Event::EnvironmentsConfigured {
            environments: Environment::defaults(),
        });
        for number in 0..nodes {
            let id: NodeId = format!("node-{number:05}")
                .parse()
                .expect("a literal name is valid");
            fleet.happen(Event::NodeRegistered {
                node: id.clone(),
                environment: "Development".parse().expect("a literal name is valid"),
                hostname: id.to_string(),
                labels: BTreeMap::new(),
            });
            let [full, beat] = heartbeat_bytes(&id, &names);
            fleet.sizes = [full.len(), beat.len()];
            fleet.obs.connected(&id, now(1));
            fleet.obs.absorb(&fleet.state, read(&full), now(1));
            fleet.beats.push(beat);
        }
        fleet
    }

    fn happen(&mut self, event: Event) {
        let logged = Logged {
            seq: self.state.seq + 1,
            epoch: 1,
            at: CoreTime(1),
            wall: WallTime(1),
            event,
        };
        apply(&mut self.state, &logged);
    }

    /// So many reports; µs to decode one and to take it in.
    fn round(&mut self, reports: usize) -> (f64, f64) {
        let (mut decode, mut absorb, mut count) = (0.0, 0.0, 0);
        while count < reports {
            self.seq += 1;
            let began = Instant::now();
            let mut read: Vec<NodeReport> = self.beats.iter().map(|beat| read(beat)).collect();
            decode += began.elapsed().as_secs_f64();
            for report in &mut read {
                report.seq = self.seq;
            }
            let began = Instant::now();
            for report in read {
                self.obs.absorb(&self.state, report, now(self.seq));
            }
            absorb += began.elapsed().as_secs_f64();
            count += self.beats.len();
        }
        black_box(&self.obs);
        (decode * 1e6 / count as f64, absorb * 1e6 / count as f64)
    }
}

fn read(bytes: &[u8]) -> NodeReport {
    let message = pb::AgentMessage::decode(bytes).expect("it was encoded here");
    message.read().expect("it is sound").expect("it is a report")
}

fn now(at: u64) -> Now {
    Now {
        core: CoreTime(at * 1_000),
        wall: WallTime(at * 1_000),
    }
}
