//! What an error came of, in words.

use std::error::Error;

/// Longest chain of causes that is told.
const CAUSES_MAX: usize = 16;

/// An error with what it came of, from the outside in, as one line's part. A cause whose words were said already, as by
/// an error that repeats its source, is not said again.
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    for _ in 0..CAUSES_MAX {
        let Some(cause) = next else { break };
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Because(&'static str, Option<Box<Because>>);

    impl std::fmt::Display for Because {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Because {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as &(dyn Error + 'static))
        }
    }

    #[test]
    fn each_cause_is_told_once_from_the_outside_in() {
        let refused = Because("refused", None);
        let twice = Because("no answer: refused", Some(Box::new(refused)));
        let outer = Because("failed to ask", Some(Box::new(twice)));
        assert_eq!(with_causes(&outer), "failed to ask: no answer: refused");
    }

    #[test]
    fn a_chain_that_never_ends_is_cut() {
        let names: Vec<&'static str> = (0..40).map(|n| &*format!("e{n:02}").leak()).collect();
        let chain = names
            .iter()
            .rev()
            .fold(None, |cause, name| Some(Box::new(Because(name, cause))));
        let told = with_causes(&*chain.expect("there is one"));
        assert!(
            told.starts_with("e00: e01: ") && told.ends_with(": e16"),
            "{told}"
        );
    }
}
