//! The example: its digest is that of `examples/particle_filter` on one machine.

mod support;

fn main() {
    support::main(&[(
        "the_digest_is_that_of_one_machine",
        the_digest_is_that_of_one_machine,
    )]);
}

/// Variances of the observations, and what `particle_filter --no-compare --particles 65536` prints as
/// its digest with them.
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
            let ran = support::run_program(1, &program, &["--particles", "65536"], "").succeeded();
            assert_eq!(ran.values("digest"), [digest]);
            assert_eq!(ran.values("log-likelihood"), ["-640.3616"]);
            // The first rank tells the progress through the launcher, where no terminal is.
            assert_eq!(ran.err.matches("step 100 of 100").count(), 1, "{ran:#?}");
        }
    }
}
