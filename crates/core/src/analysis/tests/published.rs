//! A published series that nobody made for us: admissions to the six largest departments of Berkeley's graduate school in
//! 1973 (Bickel, Hammel, O'Connell, Science 187, 1975). As one heap, women are refused far more often than men; in no
//! department are they refused much more. The share of women changes from department to department with the rate of
//! refusals, as a candidate's share of traffic may with the hour: what makes counts over all intervals lie.

use super::rng::arm;
use crate::analysis::{Block, Judge, JudgePolicy, Outcome};

/// Women and men, each (admitted, refused), by department.
const DEPARTMENTS: [((u64, u64), (u64, u64)); 6] = [
    ((89, 19), (512, 313)),
    ((17, 8), (353, 207)),
    ((202, 391), (120, 205)),
    ((131, 244), (138, 279)),
    ((94, 299), (53, 138)),
    ((24, 317), (22, 351)),
];

fn judge() -> Judge {
    Judge::new(JudgePolicy {
        judge_latency: false,
        judge_cpu: false,
        judge_memory: false,
        // 5 % more refusals are tolerated: the heap's 25 % are far beyond.
        error_margin_relative: 0.1,
        ..JudgePolicy::default()
    })
}

fn block(women: (u64, u64), men: (u64, u64)) -> Block {
    Block {
        candidate: arm(women.0 + women.1, women.1),
        control: arm(men.0 + men.1, men.1),
        ..Block::default()
    }
}

#[test]
fn the_departments_show_no_harm_that_their_sum_would_show() {
    let mut by_department = judge();
    // The series ten times over: nothing is hidden by its being short.
    for _ in 0..10 {
        for (women, men) in DEPARTMENTS {
            by_department.fold(&block(women, men));
            assert_ne!(
                by_department.outcome(),
                Outcome::Fail,
                "{}",
                by_department.verdict()
            );
        }
    }
    let add = |a: (u64, u64), b: (u64, u64)| (a.0 + b.0, a.1 + b.1);
    let (women, men) = DEPARTMENTS
        .into_iter()
        .reduce(|a, b| (add(a.0, b.0), add(a.1, b.1)))
        .unwrap();
    let mut as_one_heap = judge();
    for _ in 0..10 {
        as_one_heap.fold(&block(women, men));
    }
    let verdict = as_one_heap.verdict();
    assert!(
        verdict
            .to_string()
            .starts_with("fail: error rate 69.6 % against 55.5 %"),
        "{verdict}"
    );
}
