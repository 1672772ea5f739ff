//! One seed decides everything.

use std::collections::BTreeSet;

use hotswap_sim::faults::{Fault, FaultSet};
use hotswap_sim::many::{Many, one};
use hotswap_sim::{Shape, World};

/// Among these every kind of fault and every profile occurs.
const SEEDS: std::ops::Range<u64> = 0..60;

#[test]
fn the_same_seed_tells_the_same_story_byte_for_byte() {
    for seed in SEEDS {
        let first = World::new(seed, &Shape::default(), true).run();
        // On another thread, after other runs.
        let again = std::thread::spawn(move || World::new(seed, &Shape::default(), true).run());
        let again = again.join().unwrap();
        assert_eq!(first.story, again.story, "seed {seed}");
        assert_eq!(first.inputs, again.inputs, "seed {seed}");
        assert!(
            first.story.lines().count() > 20,
            "seed {seed} tells next to nothing"
        );
    }
}

#[test]
fn telling_the_story_changes_nothing() {
    for seed in SEEDS {
        let told = World::new(seed, &Shape::default(), true).run();
        let untold = World::new(seed, &Shape::default(), false).run();
        assert_eq!(
            (told.inputs, told.lasted),
            (untold.inputs, untold.lasted),
            "seed {seed}"
        );
        assert_eq!(told.marks, untold.marks, "seed {seed}");
        assert_eq!(untold.story, "");
    }
}

#[test]
fn another_seed_is_another_run() {
    let stories: BTreeSet<String> = (0..8)
        .map(|seed| World::new(seed, &Shape::default(), true).run().story)
        .collect();
    assert_eq!(stories.len(), 8);
}

#[test]
fn what_is_left_out_does_not_happen() {
    let without: FaultSet = Fault::ALL.iter().copied().collect();
    for seed in SEEDS {
        let shape = Shape {
            without,
            ..Shape::default()
        };
        let outcome = one(seed, &shape, false);
        assert_eq!(outcome.violation, None, "seed {seed}");
        assert!(outcome.planned.is_empty(), "seed {seed}");
        for &fault in Fault::ALL {
            assert_eq!(outcome.injected.times(fault), 0, "seed {seed}: {fault}");
        }
    }
}

#[test]
fn leaving_one_fault_out_leaves_the_others_where_they_are() {
    let whole = hotswap_sim::scenario::Scenario::draw(7, &Shape::default());
    for (place, _) in &whole.planned {
        let kept: BTreeSet<usize> = whole
            .planned
            .iter()
            .map(|(other, _)| *other)
            .filter(|o| o != place)
            .collect();
        let shape = Shape {
            planned: Some(kept.clone()),
            ..Shape::default()
        };
        let part = hotswap_sim::scenario::Scenario::draw(7, &shape);
        let places: BTreeSet<usize> = part.planned.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, kept);
        for (place, planned) in &part.planned {
            let same = whole.planned.iter().find(|(other, _)| other == place).unwrap();
            assert_eq!((planned.at, planned.whom), (same.1.at, same.1.whom));
        }
    }
}

#[test]
fn some_hundred_seeds_hold() {
    let total = Many {
        start: 1_000_000,
        seeds: 300,
        threads: 2,
        shape: Shape::default(),
        until_first: false,
        tells: false,
    }
    .run();
    assert_eq!(total.runs, 300);
    assert!(total.violations.is_empty(), "{:?}", total.violations);
}
