//! The example: its digest is that of `examples/particle_filter` on one machine.

mod support;

fn main() {
    support::main(&[(
        "the_digest_is_that_of_one_machine",
        the_digest_is_that_of_one_machine,
    )]);
}

/// Variances of the observations, each with the digest of `particle_filter --no-compare --particles
/// 65536`.
const DIGESTS: [(&str, &str); 2] = [("15099", "a793246159af4580"), ("0.01", "f2db5e1d7d7a9feb")];

fn the_digest_is_that_of_one_machine() {
    let program = support::example("nile");
    for (variance, digest) in DIGESTS {
        for (ranks, nodes) in [(1, 1), (2, 1), (2, 2), (3, 2), (4, 1), (4, 2), (4, 4)] {
            let nodes = nodes.to_string();
            let arguments = [
                "--particles",
                "65536",
                "--obs-var",
                variance,
                "--nodes",
                &nodes,
            ];
            let ran = support::run_program(ranks, &program, &arguments, "").succeeded();
            assert_eq!(
                ran.values("digest"),
                [digest],
                "{ranks} ranks on {nodes} nodes: {ran:#?}"
            );
        }
        if variance == "15099" {
            let output =
                std::env::temp_dir().join(format!("ndshm-nile-{}.npy", std::process::id()));
            let path = output.to_str().unwrap();
            let arguments = ["--particles", "65536", "--output", path];
            let ran = support::run_program(1, &program, &arguments, "").succeeded();
            let bytes = std::fs::read(&output);
            std::fs::remove_file(&output).unwrap();
            has_flows_and_levels(&bytes.unwrap());
            assert_eq!(ran.values("digest"), [digest]);
            assert_eq!(ran.values("log-likelihood"), ["-640.3616"]);
            // The first rank tells the progress through the launcher, where no terminal is.
            assert_eq!(ran.err.matches("step 100 of 100").count(), 1, "{ran:#?}");
        }
    }
}

/// Checks the file that is plotted: the flows of 1871 to 1970, and below them levels that vary less.
fn has_flows_and_levels(npy: &[u8]) {
    let numbers: Vec<f64> = npy[npy.len() - 1600..]
        .chunks_exact(8)
        .map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let (flows, levels) = numbers.split_at(100);
    assert_eq!(flows[..2], [1120.0, 1160.0]);
    let spread = |all: &[f64]| {
        let ends = all.iter().copied();
        ends.clone().fold(f64::MIN, f64::max) - ends.fold(f64::MAX, f64::min)
    };
    assert!(spread(levels) < 0.6 * spread(flows), "{levels:?}");
    assert!(
        levels.iter().all(|level| (700.0..1250.0).contains(level)),
        "{levels:?}"
    );
}
