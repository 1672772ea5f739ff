//! The table of signatures, ours beside openssl's verdict; every flipped bit; and signatures of our own making.

use std::fs;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hotswap_core::ids::{Digest, ModuleName};
use hotswap_package::digest_of;
use hotswap_trust::testing::{Offered, Packages, Workshop};
use hotswap_trust::{
    Authority, Check, Gate, SigningIdentity, TrustPolicy, UnixSeconds, ValidityAt, Verdict, verify,
};

/// Verdicts that are timed, to be told.
const VERDICTS: u32 = 200;

fn now() -> UnixSeconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixSeconds(since.as_secs())
}

fn module(name: &str) -> ModuleName {
    name.parse().unwrap()
}

fn packages() -> Packages {
    Packages {
        signed: b"a package".to_vec(),
        other_artifact: b"b package".to_vec(),
        other_manifest: b"a pAckage".to_vec(),
        other_module: b"another package".to_vec(),
    }
}

#[test]
fn each_bad_signature_is_refused_for_its_own_reason() {
    let (workshop, packages) = (Workshop::new(), packages());
    let policy = TrustPolicy::load(&workshop.trust_file()).unwrap();
    let cases = workshop.cases(&packages);
    let mut faults = Vec::new();
    println!("{:34} {:28} openssl", "case", "hotswap");
    for case in &cases {
        let bytes = packages.of(case.offered);
        let name = match case.offered {
            Offered::OtherModule => "order-management",
            _ => "payment-processor",
        };
        let verdict = verify(&digest_of(bytes), &module(name), &case.signature, &policy, now());
        let openssl = workshop.openssl_accepts(bytes, &case.signature);
        let ours = verdict.as_ref().err().map(|error| error.check);
        println!(
            "{:34} {:28} {}",
            case.name,
            ours.map_or("accepted", Check::code),
            if openssl { "accepted" } else { "refused" }
        );
        if ours != case.refused_by || openssl != case.openssl_accepts {
            faults.push(format!("{}: {verdict:?}, openssl: {openssl}", case.name));
        }
        if let Err(error) = verdict {
            let text = error.to_string();
            assert!(text.contains(error.check.code()) && text.contains("; "), "{text}");
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(cases.iter().filter(|case| case.refused_by.is_some()).count() >= 25);
}

#[test]
fn no_flipped_bit_of_a_valid_signature_is_accepted() {
    let (workshop, packages) = (Workshop::new(), packages());
    let policy = TrustPolicy::load(&workshop.trust_file()).unwrap();
    let digest = digest_of(&packages.signed);
    for (signer, more) in [
        ("signer", &["-certfile", "root/ca.pem"][..]),
        ("rsa", &[]),
        ("below", &["-certfile", "middle/ca.pem"]),
    ] {
        let good = workshop.sign(&packages.signed, signer, more);
        let judge =
            |signature: &[u8]| verify(&digest, &module("payment-processor"), signature, &policy, now());
        judge(&good).unwrap();
        let begun = Instant::now();
        (0..VERDICTS).for_each(|_| drop(judge(&good).unwrap()));
        println!(
            "{signer}: {} µs a verdict",
            begun.elapsed().as_micros() / u128::from(VERDICTS)
        );
        let mut accepted = Vec::new();
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if judge(&flipped).is_ok() {
                accepted.push(bit);
            }
        }
        println!(
            "{signer}: {} flips of {} bytes, {} accepted",
            good.len() * 8,
            good.len(),
            accepted.len()
        );
        assert!(accepted.is_empty(), "{signer}: bits {accepted:?}");
    }
}

#[test]
fn no_truncation_and_no_random_bytes_panic_or_pass() {
    let (workshop, packages) = (Workshop::new(), packages());
    let policy = TrustPolicy::load(&workshop.trust_file()).unwrap();
    let digest = digest_of(&packages.signed);
    let good = workshop.sign(&packages.signed, "signer", &[]);
    for end in 0..good.len() {
        verify(
            &digest,
            &module("payment-processor"),
            &good[..end],
            &policy,
            now(),
        )
        .unwrap_err();
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..2_000 {
        let mut bytes = good.clone();
        for _ in 0..8 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = usize::try_from(seed >> 33).unwrap() % bytes.len();
            bytes[at] ^= seed.to_le_bytes()[0] | 1;
        }
        verify(&digest, &module("payment-processor"), &bytes, &policy, now()).unwrap_err();
    }
}

#[test]
fn what_we_sign_openssl_accepts_and_so_do_we() {
    let workshop = Workshop::new();
    let policy = TrustPolicy::load(&workshop.trust_file()).unwrap();
    let (content, digest) = (b"a package", digest_of(b"a package"));
    for (signer, chain) in [("signer", None), ("rsa", None), ("below", Some("middle/ca.pem"))] {
        let read = |name: &str| fs::read(workshop.path(name)).unwrap();
        let chain = chain.map(read);
        let identity = SigningIdentity::new(
            &read(&format!("{signer}.key")),
            &read(&format!("{signer}.pem")),
            chain.as_deref(),
        )
        .unwrap();
        let signature = identity.sign(&digest, now()).unwrap();
        let found = verify(&digest, &module("payment-processor"), &signature, &policy, now()).unwrap();
        assert_eq!(found.subject, format!("CN={signer}"));
        assert_eq!(found.root, "CN=root");
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        assert!(workshop.openssl_accepts(content, &signature), "{signer}");
    }
    let read = |name: &str| fs::read(workshop.path(name)).unwrap();
    let error = SigningIdentity::new(&read("rsa.key"), &read("signer.pem"), None).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the key is not that of the certificate"),
        "{error}"
    );
    let error = SigningIdentity::new(&read("weak.key"), &read("weak.pem"), None).unwrap_err();
    assert!(error.to_string().contains("at least 2048 bits"), "{error}");
}

#[test]
fn our_own_authority_makes_what_passes() {
    let authority = Authority::new("a root", now()).unwrap();
    let signer = authority.issue_signer("a signer").unwrap();
    let policy = TrustPolicy::of_roots(authority.root().certificate.as_bytes()).unwrap();
    let identity = SigningIdentity::new(signer.key.as_bytes(), signer.certificate.as_bytes(), None).unwrap();
    let digest = Digest([7; 32]);
    let signature = identity.sign(&digest, now()).unwrap();
    let found = verify(&digest, &module("anything"), &signature, &policy, now()).unwrap();
    assert_eq!(found.subject, "CN=a signer");

    let (day, year) = (86_400, 365 * 86_400);
    let later = |seconds| UnixSeconds(now().0 + seconds);
    let soon = verify(
        &digest,
        &module("anything"),
        &signature,
        &policy,
        later(year - 10 * day),
    )
    .unwrap();
    assert!(soon.warnings[0].contains("expires in"), "{:?}", soon.warnings);
    let after = verify(
        &digest,
        &module("anything"),
        &signature,
        &policy,
        later(year + day),
    );
    assert_eq!(after.unwrap_err().check, Check::Expired);
    let policy = policy.valid_at(ValidityAt::Signing);
    let after = verify(
        &digest,
        &module("anything"),
        &signature,
        &policy,
        later(year + day),
    )
    .unwrap();
    assert!(
        after.warnings[0].contains("has expired meanwhile"),
        "{:?}",
        after.warnings
    );
    let before = UnixSeconds(now().0 - 3_600);
    let future = verify(&digest, &module("anything"), &signature, &policy, before);
    assert_eq!(future.unwrap_err().check, Check::SigningTime);
}

#[test]
fn a_gate_is_shut_unless_told_otherwise() {
    let workshop = Workshop::new();
    let digest = digest_of(b"a package");
    let good = workshop.sign(b"a package", "signer", &[]);
    let bad = workshop.sign(b"a package", "revoked", &[]);
    let judge = |gate: &Gate, signature: Option<&[u8]>| {
        gate.judge(&digest, &module("payment-processor"), signature, now())
            .map_err(|error| error.check)
    };
    let shut = Gate::default();
    assert_eq!(judge(&shut, None), Err(Check::NoRoots));
    assert_eq!(judge(&shut, Some(&good)), Err(Check::NoRoots));
    let strict = Gate::signed(workshop.trust_file());
    assert_eq!(judge(&strict, None), Err(Check::Unsigned));
    assert!(matches!(judge(&strict, Some(&good)), Ok(Verdict::Signed(_))));
    let lax = strict.allowing_unsigned();
    assert_eq!(judge(&lax, None), Ok(Verdict::Unsigned));
    assert_eq!(
        judge(&lax, Some(&bad)),
        Err(Check::Revoked),
        "one that is there must be good"
    );
    let gone = Gate::signed(workshop.path("nothing.toml"));
    assert_eq!(judge(&gone, Some(&good)), Err(Check::Policy));
}

#[test]
fn a_list_must_speak_for_every_issuer_and_be_fresh() {
    let workshop = Workshop::new();
    let read = |name: &str| fs::read(workshop.path(name)).unwrap();
    let digest = digest_of(b"a package");
    let signature = workshop.sign(b"a package", "below", &["-certfile", "middle/ca.pem"]);
    let judge = |policy: &TrustPolicy, now| {
        verify(&digest, &module("payment-processor"), &signature, policy, now).map_err(|error| error.check)
    };
    let roots = || TrustPolicy::of_roots(&read("root/ca.pem")).unwrap();
    assert!(judge(&roots(), now()).is_ok(), "without lists nothing is asked");
    let one = roots().with_lists(&read("root/crl.pem")).unwrap();
    assert_eq!(judge(&one, now()), Err(Check::RevocationUnknown));
    let both = one.with_lists(&read("middle/crl.pem")).unwrap();
    assert!(judge(&both, now()).is_ok());
    // A newer list beside an older one counts, wherever it stands.
    let revoked = workshop.sign(b"a package", "revoked", &[]);
    let newest = read("root/crl.pem");
    let former = read("root/crl-former.pem");
    for lists in [[&former, &newest], [&newest, &former]] {
        let policy = roots()
            .with_lists(lists[0])
            .unwrap()
            .with_lists(lists[1])
            .unwrap();
        let judged = verify(&digest, &module("payment-processor"), &revoked, &policy, now());
        assert_eq!(judged.map_err(|error| error.check), Err(Check::Revoked));
    }
    let in_eleven_years = UnixSeconds(now().0 + 11 * 365 * 86_400);
    assert_eq!(judge(&both, in_eleven_years), Err(Check::RevocationListExpired));
}

#[test]
fn a_faulty_trust_file_is_told_with_what_would_be_right() {
    let workshop = Workshop::new();
    let fault = |text: &str| {
        let path = workshop.path("faulty.toml");
        fs::write(&path, text).unwrap();
        TrustPolicy::load(&path).unwrap_err().to_string()
    };
    assert!(fault("roots = []").contains("name at least one file"));
    assert!(
        fault("root = []").contains("unknown field `root`"),
        "{}",
        fault("root = []")
    );
    assert!(fault("roots = [\"signer.pem\"]").contains("no CA certificate"));
    assert!(fault("roots = [\"signer.key\"]").contains("no certificate"));
    assert!(fault("roots = [\"gone.pem\"]").contains("failed to read"));
    assert!(fault("roots = [\"root/ca.pem\"]\nrsa-bits-min = 1024").contains("between 2048 and 8192"));
    assert!(
        fault("roots = [\"root/ca.pem\"]\n[[signers]]\nmodules = [\"a\"]")
            .contains("`name` or `fingerprint`")
    );
}
