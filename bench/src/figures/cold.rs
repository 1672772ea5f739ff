//! How long a compiled component takes to be ready.

use anyhow::Result;

use super::Setting;
use crate::load::{median, quantile};
use crate::modules;
use crate::report::{Figure, Report, Target};
use crate::serve::module::cold_loads;

pub(super) async fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    let folder = modules::folder(&setting.root);
    let kib = std::fs::metadata(modules::component(&setting.root))?.len() / 1_000;
    report.section(&format!("Load of a compiled {kib} kB component by a new host"));
    let took = cold_loads(&folder, &setting.dir.join("compiled"), setting.pick(10, 50)).await?;
    report.add(Figure::new("to ready, median", median(&took), "ms").wants(Target::AtMost(5.0)));
    report.add(Figure::new("to ready, slowest", quantile(&took, 1.0), "ms"));
    Ok(())
}
