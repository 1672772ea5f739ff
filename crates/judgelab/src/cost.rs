//! What folding an interval costs.

use std::hint::black_box;
use std::time::Instant;

use hotswap_core::analysis::{ArmCounts, Block, Judge, JudgePolicy};

use crate::errors::{errors_alone, interval};
use crate::lab::table;
use crate::latency::{Shape, arm};
use crate::rng::Rng;

const FOLDS: u32 = 2_000;
const NODES: u32 = 64;

pub(crate) fn cost() {
    let shape = Shape::new(0.6, 1.0, 0.0);
    let mut rng = Rng::new(1);
    let errors: Vec<Block> = (0..64)
        .map(|_| interval(&mut rng, (500, 500), (0.01, 0.01)))
        .collect();
    let latency: Vec<Block> = (0..64)
        .map(|_| Block {
            candidate: arm(&mut rng, &shape, 500),
            control: arm(&mut rng, &shape, 500),
            ..Block::default()
        })
        .collect();
    let nodes: Vec<Block> = (0..64)
        .map(|_| {
            let mut block = Block::default();
            for place in 0..NODES {
                let mut metered = |cpu_us| ArmCounts {
                    errors: rng.binomial(10, 0.01),
                    cpu_us,
                    memory_kib: 20_000,
                    memory_readings: 1,
                    ..arm(&mut rng, &shape, 10)
                };
                let node = Block {
                    candidate: metered(4_100),
                    control: metered(4_000),
                    ..Block::default()
                };
                block.merge_node(place, &node);
            }
            block
        })
        .collect();
    let rows = [
        ("errors alone", errors_alone(0.01), &errors),
        ("with latency", JudgePolicy::default(), &latency),
        ("with latency, and 64 nodes apart", JudgePolicy::default(), &nodes),
    ]
    .map(|(name, policy, blocks)| vec![name.to_owned(), per_fold(policy, blocks)]);
    table(
        "Time to fold an interval, on this machine now",
        &["signals", "µs"],
        &rows,
    );
}

fn per_fold(policy: JudgePolicy, blocks: &[Block]) -> String {
    let mut judge = Judge::new(policy);
    let began = Instant::now();
    for block in blocks.iter().cycle().take(FOLDS as usize) {
        judge.fold(black_box(block));
    }
    black_box(judge.outcome());
    format!("{:.1}", began.elapsed().as_secs_f64() * 1e6 / f64::from(FOLDS))
}
