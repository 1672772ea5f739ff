//! Specs.

use std::collections::BTreeMap;

use hotswap_core::ids::{ModuleName, RolloutId};
use hotswap_core::spec::{MODULES_PER_NODE_MAX, ModuleSpec, NodeSpec, Observe};
use hotswap_core::time::Millis;
use hotswap_core::values::{Values, faults};

use super::RELEASES_MAX;
use super::parts::{
    digest_in, digest_opt_in, digest_out, fleet_in, generation_in, generation_out, list_in, module_in,
    optional, release_in, release_out, routes_in, routes_out, smoke_run_in, smoke_run_out,
};
use crate::malformed::{At as _, Fault, Malformed};
use crate::pb;

impl From<&NodeSpec> for pb::NodeSpec {
    fn from(spec: &NodeSpec) -> Self {
        Self {
            fleet: spec.fleet.0.as_bytes().to_vec(),
            generation: Some(generation_out(spec.generation)),
            modules: spec
                .modules
                .iter()
                .map(|(name, module)| module_out(name, module))
                .collect(),
            traces: spec
                .traces
                .iter()
                .map(|(name, parent)| (name.to_string(), parent.to_string()))
                .collect(),
        }
    }
}

impl TryFrom<pb::NodeSpec> for NodeSpec {
    type Error = Malformed;
    fn try_from(spec: pb::NodeSpec) -> Result<Self, Malformed> {
        let mut modules = BTreeMap::new();
        for (name, module) in list_in("modules", spec.modules, MODULES_PER_NODE_MAX, module_spec_in)? {
            if modules.insert(name.clone(), module).is_some() {
                return Err(Fault::Twice(name.to_string()).at("modules"));
            }
        }
        if spec.traces.len() > MODULES_PER_NODE_MAX {
            return Err(Fault::TooMany {
                is: spec.traces.len(),
                max: MODULES_PER_NODE_MAX,
            }
            .at("traces"));
        }
        let mut traces = BTreeMap::new();
        for (name, parent) in spec.traces {
            let parent = parent.parse().map_err(Fault::invalid).at("traces")?;
            traces.insert(module_in(&name).at("traces")?, parent);
        }
        Ok(Self {
            fleet: fleet_in(&spec.fleet).at("fleet")?,
            generation: generation_in(spec.generation),
            modules,
            traces,
        })
    }
}

fn module_out(name: &ModuleName, module: &ModuleSpec) -> pb::ModuleSpec {
    pb::ModuleSpec {
        name: name.to_string(),
        rollout: module.rollout.0,
        trial: module.trial,
        releases: module.releases.iter().map(release_out).collect(),
        values: module.values.iter().map(values_out).collect(),
        prefetch: module.prefetch.iter().map(digest_out).collect(),
        routes: routes_out(&module.routes),
        preview: module.preview.as_ref().map(digest_out),
        settle_ms: module.settle.0,
        smoke: module.smoke.as_ref().map(smoke_run_out),
        observe: module.observe.as_ref().map(observe_out),
    }
}

fn module_spec_in(module: pb::ModuleSpec) -> Result<(ModuleName, ModuleSpec), Malformed> {
    let spec = ModuleSpec {
        rollout: RolloutId(module.rollout),
        trial: module.trial,
        releases: list_in("releases", module.releases, RELEASES_MAX, release_in)?,
        values: list_in("values", module.values, RELEASES_MAX, values_in)?
            .into_iter()
            .collect(),
        prefetch: list_in("prefetch", module.prefetch, RELEASES_MAX, |digest: Vec<u8>| {
            digest_in(&digest)
        })?,
        routes: routes_in("routes", module.routes)?,
        preview: digest_opt_in(module.preview).at("preview")?,
        settle: Millis(module.settle_ms),
        smoke: optional("smoke", module.smoke.as_ref(), smoke_run_in)?,
        observe: optional("observe", module.observe, observe_in)?,
    };
    let held = |digest| spec.releases.iter().any(|release| release.id() == digest);
    if let Some((digest, _)) = spec.routes.iter().find(|(digest, _)| !held(*digest)) {
        return Err(Fault::Invalid(format!("{digest} is not among the releases")).at("routes"));
    }
    if let Some(digest) = spec.preview.filter(|digest| !held(*digest)) {
        return Err(Fault::Invalid(format!("{digest} is not among the releases")).at("preview"));
    }
    Ok((module_in(&module.name).at("name")?, spec))
}

fn values_out((number, values): (&u64, &Values)) -> pb::Values {
    pb::Values {
        number: *number,
        values: values
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    }
}

fn values_in(values: pb::Values) -> Result<(u64, Values), Fault> {
    let given: Values = values.values.into_iter().collect();
    match faults(&given).into_iter().next() {
        Some(fault) => Err(Fault::Invalid(fault)),
        None => Ok((values.number, given)),
    }
}

fn observe_out(observe: &Observe) -> pb::Observe {
    pb::Observe {
        rollout: observe.rollout.0,
        step: observe.step,
        candidate: digest_out(&observe.candidate),
        control: observe.control.as_ref().map(digest_out),
        interval_ms: observe.interval.0,
        probes: observe.probes,
    }
}

fn observe_in(observe: pb::Observe) -> Result<Observe, Malformed> {
    if observe.interval_ms == 0 {
        return Err(Fault::Missing.at("interval_ms"));
    }
    Ok(Observe {
        rollout: RolloutId(observe.rollout),
        step: observe.step,
        candidate: digest_in(&observe.candidate).at("candidate")?,
        control: digest_opt_in(observe.control).at("control")?,
        interval: Millis(observe.interval_ms),
        probes: observe.probes,
    })
}
