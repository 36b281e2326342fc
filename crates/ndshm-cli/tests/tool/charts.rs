//! Tests of charts: their numbers, the text, the files.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::program::{Live, Which};
use crate::runs::{self, piped};

pub fn charts_show_the_numbers() {
    let mut live = Live::named("charts");
    let plot = |array: Which, more: &[&str]| {
        let array = live.array(array);
        let args = [&["plot", &live.place, &array][..], more].concat();
        let ran = runs::json(&args);
        ran.ends_with(0).json()
    };
    let histogram = plot(Which::Large, &["--bins", "251"]);
    assert_eq!(histogram["kind"], "histogram");
    let counts = histogram["counts"].as_array().unwrap();
    assert_eq!(
        (counts[0].as_u64(), counts[250].as_u64()),
        (Some(3985), Some(3984))
    );
    let heat = plot(Which::Plain, &[]);
    assert_eq!(
        (&heat["kind"], &heat["rows"][3][2]),
        (&json!("heat"), &json!(11.5))
    );
    // Fortran order does not change the rows.
    assert_eq!(
        plot(Which::Fortran, &[])["rows"],
        json!([[-1.0, 0.0, 1.0], [2.0, 3.0, 4.0]])
    );
    let line = plot(Which::Plain, &["--slice", "::-1,1"]);
    assert_eq!(
        (&line["kind"], &line["values"]),
        (&json!("line"), &json!([10.5, 7.5, 4.5, 1.5]))
    );
    let odd = plot(Which::Odd, &[]);
    assert_eq!(
        (&odd["left_out"], &odd["values"]),
        (&json!(2), &json!([null, null, 0.0, 2.0]))
    );
    let modulus = plot(Which::Complex, &["--line"]);
    assert_eq!(modulus["values"], json!([5f64.sqrt(), 0.0]));
    assert_eq!(
        plot(Which::Records, &["--field", "id"])["values"],
        json!([0.0, 7.0])
    );
    assert_eq!(
        plot(Which::Flags, &[])["values"],
        json!([0.0, 0.0, 0.0, 1.0, 0.0])
    );

    // Each of the three columns is a line; at least 24 rows make lines the default.
    let lines = plot(Which::Plain, &["--line"]);
    assert_eq!(
        (&lines["kind"], &lines["lines"][2]),
        (&json!("lines"), &json!([2.5, 5.5, 8.5, 11.5]))
    );
    let some = plot(Which::Plain, &["--line", "--slice", ":,1:"]);
    assert_eq!(
        (&some["indices"], &some["lines"][0][0]),
        (&json!([1, 2]), &json!(1.5))
    );
    for empty in ["--heat", "--line", "--hist"] {
        let none = live.array(Which::Plain);
        let none = ["plot", &live.place, &none, "--slice", "0:0", empty];
        piped(&none).ends_with(0);
    }

    let refused: [(Which, &[&str]); 7] = [
        (Which::Records, &[]),
        (Which::Records, &["--field", "none"]),
        (Which::Halves, &[]),
        (Which::Plain, &["--field", "x"]),
        (Which::Flags, &["--heat"]),
        (Which::Plain, &["-o", "chart.jpg"]),
        (Which::Plain, &["--line", "--heat"]),
    ];
    for (array, more) in refused {
        let array = live.array(array);
        piped(&[&["plot", &live.place, &array][..], more].concat()).ends_with(2);
    }
    let ascii = piped(&["plot", &live.place, "also plain", "--ascii"]);
    assert!(ascii.ends_with(0).out.is_ascii(), "{}", ascii.out);
    let coloured = runs::terminal(&["plot", &live.place, "also plain"], &[]);
    assert!(
        coloured.ends_with(0).out.contains("\x1b[48;2;"),
        "{}",
        coloured.out
    );
    files(&live);
    live.is_undisturbed();
    live.leave();
}

fn files(live: &Live) {
    let plain = live.array(Which::Plain);
    let path = |end: &str| -> PathBuf {
        let own = format!("ndshm-test-{}.{end}", std::process::id());
        std::env::temp_dir().join(own)
    };
    for kind in [&["--heat"][..], &["--line"], &["--hist"]] {
        for end in ["svg", "png"] {
            let file = path(end);
            let output = file.to_str().unwrap();
            let args = [&["plot", &live.place, &plain, "-o", output][..], kind].concat();
            piped(&args).ends_with(0);
            let bytes = fs::read(&file).unwrap();
            fs::remove_file(&file).unwrap();
            match end {
                "png" => {
                    // Signature; the height in the first chunk: PNG, sections 5.2, 11.2.1.
                    assert_eq!(bytes[..8], *b"\x89PNG\r\n\x1a\n");
                    let height = u32::from_be_bytes(bytes[20..24].try_into().unwrap());
                    // 560 or 400 pixels of numbers, with 80 for title and ticks.
                    let expected = if kind[0] == "--heat" { 640 } else { 480 };
                    assert_eq!(height, expected, "{kind:?}");
                }
                _ => {
                    let text = String::from_utf8(bytes).unwrap();
                    assert!(text.contains("f64") && text.ends_with("</svg>\n"), "{text}");
                    let images = if kind[0] == "--heat" { 2 } else { 0 };
                    assert_eq!(text.matches("<image").count(), images, "{text}");
                    assert!(text.len() < 20_000, "{kind:?}: {} bytes", text.len());
                    assert_eq!(
                        text.matches("<text").count(),
                        text.matches("</text>").count()
                    );
                }
            }
        }
    }
}
