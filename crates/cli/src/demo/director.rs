//! Looks at the running demo over its own API, and shows what it sees.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::policy::{FLEET, PRODUCTION};
use super::traffic::{Counters, Traffic};
use super::view;
use crate::client::{Analysis, Client, Decision, Deployment, Judged, Node, Stage, Why};
use crate::output::{Live, Output};

/// How often the API is asked: the precision of what is told about nodes.
pub(crate) const LOOK: Duration = Duration::from_millis(100);
/// How often the evidence and the decisions are asked for: the server folds them from its log each time.
const STUDY: Duration = Duration::from_millis(400);
/// Least time between two frames.
const FRAME: Duration = Duration::from_millis(250);
/// Over how long rates are averaged.
const RATE_WINDOW: Duration = Duration::from_secs(2);
/// Happenings that are kept.
const LOG_MAX: usize = 64;

/// What there is to see.
pub(crate) struct Scene {
    pub(crate) url: String,
    pub(crate) elapsed: Duration,
    pub(crate) headline: String,
    /// The version that is being rolled out.
    pub(crate) candidate: Option<String>,
    pub(crate) deployment: Option<Deployment>,
    pub(crate) judged: Option<Judged>,
    /// Decisions of the deployment, by the server's own record.
    pub(crate) decisions: Vec<Decision>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) counters: Counters,
    /// Answers a second, by environment.
    pub(crate) rates: BTreeMap<String, f64>,
    pub(crate) log: VecDeque<String>,
}

/// Looks and shows.
pub(crate) struct Director<'a> {
    pub(crate) client: Client,
    pub(crate) scene: Scene,
    output: &'a Output,
    traffic: Option<Traffic>,
    began: Instant,
    live: Option<Live>,
    drawn: Option<Instant>,
    told: BTreeMap<String, Stage>,
    /// How many of the deployment's decisions were told.
    told_decisions: usize,
    told_versions: BTreeMap<String, BTreeMap<String, u32>>,
    samples: VecDeque<(Instant, BTreeMap<String, u64>)>,
    studied: Option<Instant>,
    /// Version and node, of Production.
    reached: BTreeSet<(String, String)>,
}

impl<'a> Director<'a> {
    /// Of the demo at `url`.
    ///
    /// # Errors
    /// Those of stdout.
    pub(crate) fn new(client: Client, url: String, output: &'a Output) -> std::io::Result<Self> {
        let live = (output.is_terminal() && !output.is_json())
            .then(Live::new)
            .transpose()?;
        let began = Instant::now();
        let scene = Scene {
            url,
            elapsed: Duration::ZERO,
            headline: String::new(),
            candidate: None,
            deployment: None,
            judged: None,
            decisions: Vec::new(),
            nodes: Vec::new(),
            counters: Counters::new(began),
            rates: BTreeMap::new(),
            log: VecDeque::new(),
        };
        Ok(Self {
            client,
            scene,
            output,
            traffic: None,
            began,
            live,
            drawn: None,
            told: BTreeMap::new(),
            told_decisions: 0,
            told_versions: BTreeMap::new(),
            samples: VecDeque::new(),
            studied: None,
            reached: BTreeSet::new(),
        })
    }

    /// Customers come from now on.
    pub(crate) fn set_traffic(&mut self, traffic: Traffic) {
        self.traffic = Some(traffic);
    }

    /// Customers go home; what they saw in all.
    pub(crate) async fn stop_traffic(&mut self) -> Counters {
        match self.traffic.take() {
            Some(traffic) => traffic.stop().await,
            None => self.counters(),
        }
    }

    /// What the customers saw so far.
    pub(crate) fn counters(&self) -> Counters {
        self.traffic
            .as_ref()
            .map_or_else(|| self.scene.counters.clone(), Traffic::counters)
    }

    /// Tells a happening.
    ///
    /// # Errors
    /// Those of stdout.
    pub(crate) fn tell(&mut self, text: impl Into<String>) -> std::io::Result<()> {
        let line = format!("{:>5}  {}", view::clock(self.began.elapsed()), text.into());
        if self.live.is_none() && !self.output.is_json() {
            self.output.line(&line)?;
        }
        self.scene.log.push_back(line);
        if self.scene.log.len() > LOG_MAX {
            self.scene.log.pop_front();
        }
        Ok(())
    }

    /// Looks at no deployment any more.
    pub(crate) fn rest(&mut self, headline: String) {
        self.scene.headline = headline;
        self.scene.candidate = None;
        self.scene.deployment = None;
        self.scene.judged = None;
    }

    /// How many nodes of Production ever said that they route to a version.
    pub(crate) fn reached(&self, version: &str) -> u32 {
        let nodes = self.reached.iter().filter(|(reached, _)| reached == version);
        u32::try_from(nodes.count()).unwrap_or(u32::MAX)
    }

    /// Begins to look at another deployment.
    pub(crate) fn turn_to(&mut self, headline: String, candidate: &str) {
        self.scene.headline = headline;
        self.scene.candidate = Some(candidate.to_owned());
        self.scene.deployment = None;
        self.scene.judged = None;
        self.scene.decisions.clear();
        self.told.clear();
        self.told_decisions = 0;
        self.studied = None;
    }

    /// Looks at the nodes, and at a deployment; tells what changed, and draws.
    ///
    /// # Errors
    /// The API fails, or stdout.
    pub(crate) async fn look(&mut self, deployment: Option<&str>) -> anyhow::Result<()> {
        self.scene.nodes = self.client.fetch(&["nodes"], &[]).await?;
        for node in self
            .scene
            .nodes
            .iter()
            .filter(|node| node.environment == PRODUCTION)
        {
            let versions = node.running().filter(|(module, _)| *module == view::MODULE);
            self.reached
                .extend(versions.map(|(_, version)| (version.to_owned(), node.node_id.clone())));
        }
        if let Some(id) = deployment {
            let deployment: Deployment = self.client.fetch(&["deployments", id], &[]).await?;
            // A stage's change is told with the decisions that led to it.
            let status =
                |stage: &Stage| self.told.get(&stage.name).map(|told| &told.status) == Some(&stage.status);
            let news = !deployment
                .stages
                .iter()
                .filter(|stage| stage.status != "Pending")
                .all(status);
            if news || self.studied.is_none_or(|studied| studied.elapsed() >= STUDY) {
                self.studied = Some(Instant::now());
                let analysis: Analysis = self.client.fetch(&["deployments", id, "analysis"], &[]).await?;
                self.scene.judged = analysis.rollouts.into_iter().last();
                let why: Why = self.client.fetch(&["deployments", id, "why"], &[]).await?;
                self.scene.decisions = why.decisions;
            }
            self.scene.deployment = Some(deployment);
        }
        self.scene.counters = self.counters();
        self.rate();
        self.tell_changes()?;
        self.draw()
    }

    fn rate(&mut self) {
        let now = Instant::now();
        let counts = self.scene.counters.environments.iter();
        let counts: BTreeMap<String, u64> = counts
            .map(|(name, counts)| (name.clone(), counts.answers()))
            .collect();
        while self.samples.len() > 1
            && self
                .samples
                .front()
                .is_some_and(|(at, _)| now - *at > RATE_WINDOW)
        {
            self.samples.pop_front();
        }
        if let Some((at, before)) = self.samples.front() {
            let seconds = (now - *at).as_secs_f64();
            let rate = |name: &String, count: u64| {
                count.saturating_sub(before.get(name).copied().unwrap_or_default()) as f64 / seconds
            };
            self.scene.rates = counts
                .iter()
                .map(|(name, &count)| (name.clone(), rate(name, count)))
                .collect();
        }
        self.samples.push_back((now, counts));
    }

    fn tell_changes(&mut self) -> std::io::Result<()> {
        let mut lines = Vec::new();
        for (environment, _, _) in FLEET {
            let nodes = self
                .scene
                .nodes
                .iter()
                .filter(|node| node.environment == environment);
            let versions = view::by_version(nodes);
            let before = self
                .told_versions
                .insert(environment.to_owned(), versions.clone());
            let is_news = before.map_or_else(
                || versions.keys().any(|runs| runs != "nothing"),
                |before| before != versions,
            );
            if is_news {
                let counts: Vec<String> = versions
                    .iter()
                    .map(|(version, count)| format!("{count} × {version}"))
                    .collect();
                lines.push(format!("{environment}: {}", counts.join(", ")));
            }
        }
        lines.extend(
            self.scene
                .decisions
                .iter()
                .skip(self.told_decisions)
                .filter_map(|decision| self.worded(decision)),
        );
        self.told_decisions = self.scene.decisions.len();
        if let Some(deployment) = &self.scene.deployment {
            for stage in deployment.stages.iter().filter(|stage| stage.status != "Pending") {
                let before = self.told.insert(stage.name.clone(), stage.clone());
                if before.is_none_or(|before| before.status != stage.status) {
                    let message = match (stage.status.as_str(), stage.strategy.as_deref()) {
                        // What it waits for then changes by the moment.
                        ("Running", strategy) => strategy.unwrap_or_default(),
                        _ => stage.message.as_deref().unwrap_or_default(),
                    };
                    let line = format!("{} {}: {message}", stage.name, stage.status.to_lowercase());
                    lines.push(line.trim_end_matches([' ', ':']).to_owned());
                }
            }
        }
        for line in lines {
            self.tell(line)?;
        }
        Ok(())
    }

    /// A decision that belongs to the story; with a judged step's go what it rests on.
    fn worded(&self, decision: &Decision) -> Option<String> {
        let kind = decision.data.get("type")?.as_str()?;
        let production = decision.stage.ends_with(PRODUCTION);
        let place = decision.stage.trim_start_matches("Deploy to ");
        match kind {
            "backStarted" | "nodeExcluded" | "rolloutHeld" => {}
            "stepStarted" | "stepCompleted" if production => {}
            _ => return None,
        }
        let mut line = format!("{place}: {}", decision.message);
        if matches!(kind, "backStarted" | "stepCompleted")
            && let Some(judged) = &self.scene.judged
            && judged.environment == place
        {
            // Events count steps from 0; the way back concerns the step that ran last.
            let step = decision
                .data
                .get("step")
                .and_then(serde_json::Value::as_u64)
                .map(|step| step + 1);
            let step = step.unwrap_or_else(|| judged.step.into());
            if let Some(step) = judged.steps.iter().find(|other| u64::from(other.step) == step) {
                let (candidate, control) = (view::arm(&step.candidate), view::arm(&step.control));
                line.push_str(&format!(" [candidate: {candidate}; control: {control}]"));
            }
        }
        Some(line)
    }

    fn draw(&mut self) -> anyhow::Result<()> {
        self.scene.elapsed = self.began.elapsed();
        let Some(live) = &mut self.live else { return Ok(()) };
        if self.drawn.is_some_and(|drawn| drawn.elapsed() < FRAME) {
            return Ok(());
        }
        self.drawn = Some(Instant::now());
        let columns = self.output.columns().unwrap_or(usize::MAX);
        live.draw(&view::frame(
            &self.scene,
            self.output.style(),
            columns,
            self.output.rows(),
        ))?;
        Ok(())
    }

    /// Leaves the last frame and gives the terminal back.
    pub(crate) fn curtain(&mut self) {
        self.live = None;
    }
}
