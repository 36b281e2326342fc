//! Draws a page as SVG and as PNG. The texts of a PNG are in DejaVu Sans, which is part of the tool;
//! those of an SVG are texts, which the viewer draws.

use std::fmt::Write;
use std::sync::Once;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ndarray::Array2;
use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{
    Color, FontDesc, FontFamily, FontStyle, RGBColor, ShapeStyle, TextStyle, register_font,
};

use super::scene::{self, Anchor, Colour, INK, Scene, Shape};
use crate::output::Failure;

/// Units of an SVG per pixel: the backend takes whole units.
const FINE: f64 = 10.0;
/// Pixels that are drawn for each pixel of a PNG, along each axis; they are averaged.
const SAMPLES: usize = 3;

/// The backend divides the size of a font by this in an SVG.
const POINTS: f64 = 1.24;

/// Returns the font of a size in pixels.
fn font(size: f64) -> FontDesc<'static> {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // Ignore the result: without the font, the first use of it reports an error.
        let _ = register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular());
    });
    FontDesc::new(FontFamily::SansSerif, size, FontStyle::Normal)
}

/// Returns the width of a text in pixels.
pub fn text_width(text: &str, size: f64) -> f64 {
    // Measure it large: the backend rounds to whole pixels.
    let width = font(size * FINE).box_size(text).map(|(width, _)| width);
    width.map_or(0.0, |width| f64::from(width) / FINE)
}

/// Returns the page as an SVG document.
pub fn svg(scene: &Scene) -> Result<String, Failure> {
    let mut text = String::new();
    let size = (scene.width as u32, scene.height as u32);
    let fine = |length: u32| length * FINE as u32;
    let mut backend = SVGBackend::with_string(&mut text, (fine(size.0), fine(size.1)));
    draw(scene, &mut backend, FINE, true).map_err(Failure::refused)?;
    backend.present().map_err(Failure::refused)?;
    drop(backend);
    // The page has the size in pixels, and the units are finer.
    let body = text.find('>').map_or("", |end| &text[end + 1..]);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {} {}\">",
        size.0,
        size.1,
        fine(size.0),
        fine(size.1)
    );
    let body = body.trim_end().trim_end_matches("</svg>");
    svg.push_str(body);
    for shape in &scene.shapes {
        if let Shape::Image { at, size, levels } = shape {
            let png = encode_levels(levels).map_err(Failure::refused)?;
            // Writing to a string does not fail.
            let _ = writeln!(
                svg,
                "<image x=\"{:.0}\" y=\"{:.0}\" width=\"{:.0}\" height=\"{:.0}\" \
                 preserveAspectRatio=\"none\" style=\"image-rendering:pixelated\" \
                 href=\"data:image/png;base64,{}\"/>",
                at.0 * FINE,
                at.1 * FINE,
                size.0 * FINE,
                size.1 * FINE,
                STANDARD.encode(png)
            );
        }
    }
    Ok(svg + "</svg>\n")
}

/// Returns the page as a PNG file.
pub fn png(scene: &Scene) -> Result<Vec<u8>, Failure> {
    let (width, height) = (scene.width * SAMPLES, scene.height * SAMPLES);
    let mut large = vec![255; width * height * 3];
    let mut backend = BitMapBackend::with_buffer(&mut large, (width as u32, height as u32));
    draw(scene, &mut backend, SAMPLES as f64, false).map_err(Failure::refused)?;
    backend.present().map_err(Failure::refused)?;
    drop(backend);
    let mut pixels = averaged(&large, scene.width, scene.height);
    for shape in &scene.shapes {
        if let Shape::Image { at, size, levels } = shape {
            fill(&mut pixels, scene, *at, *size, levels);
        }
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, scene.width as u32, scene.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let written = encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(&pixels));
    written.map_err(Failure::refused)?;
    Ok(bytes)
}

/// Draws all shapes but the images. A backend for lines draws each as one path; one for pixels draws
/// its pieces, because its wide paths have gaps at sharp turns.
fn draw<B: DrawingBackend>(
    scene: &Scene,
    backend: &mut B,
    scale: f64,
    paths: bool,
) -> Result<(), String> {
    let unit = |(x, y): (f64, f64)| ((x * scale).round() as i32, (y * scale).round() as i32);
    let end = (scene.width as f64, scene.height as f64);
    let text_of = |error: &dyn std::fmt::Display| error.to_string();
    let filled = |colour| ShapeStyle::from(rgb(colour)).filled();
    let page = backend.draw_rect((0, 0), unit(end), &filled([255; 3]), true);
    page.map_err(|error| text_of(&error))?;
    for shape in &scene.shapes {
        let drawn = match shape {
            Shape::Rectangle { at, size, colour } => {
                let corner = (at.0 + size.0, at.1 + size.1);
                backend.draw_rect(unit(*at), unit(corner), &filled(*colour), true)
            }
            Shape::Line {
                points,
                width,
                colour,
            } => {
                let width = (width * scale).round().max(1.0) as u32;
                let style = rgb(*colour).stroke_width(width);
                match paths {
                    true => backend.draw_path(points.iter().map(|&point| unit(point)), &style),
                    false => points.windows(2).try_for_each(|ends| {
                        backend.draw_line(unit(ends[0]), unit(ends[1]), &style)?;
                        // Round joints. The ends of axes and ticks stay square.
                        match points.len() > 2 && width > 2 {
                            true => backend.draw_circle(
                                unit(ends[1]),
                                width / 2,
                                &filled(*colour),
                                true,
                            ),
                            false => Ok(()),
                        }
                    }),
                }
            }
            Shape::Text {
                at,
                anchor,
                size,
                text,
            } => {
                let anchor = match anchor {
                    Anchor::Start => HPos::Left,
                    Anchor::Middle => HPos::Center,
                    Anchor::End => HPos::Right,
                };
                let (size, at) = match paths {
                    true => (size * POINTS, *at),
                    // The backend for pixels centres the box of a text without its descenders.
                    false => (*size, (at.0, at.1 + size * 0.08)),
                };
                let ink = rgb(INK);
                let style = TextStyle::from(font(size * scale)).color(&ink);
                backend.draw_text(text, &style.pos(Pos::new(anchor, VPos::Center)), unit(at))
            }
            Shape::Image { .. } => Ok(()),
        };
        drawn.map_err(|error| text_of(&error))?;
    }
    Ok(())
}

fn rgb([red, green, blue]: Colour) -> RGBColor {
    RGBColor(red, green, blue)
}

/// Returns the picture with each pixel the mean of those drawn for it.
fn averaged(large: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(width * height * 3);
    let row = width * SAMPLES * 3;
    for y in 0..height {
        for x in 0..width {
            for colour in 0..3 {
                let mut sum = 0;
                for down in 0..SAMPLES {
                    let start = (y * SAMPLES + down) * row + x * SAMPLES * 3 + colour;
                    let samples = large[start..].iter().step_by(3).take(SAMPLES);
                    sum += samples.map(|&byte| usize::from(byte)).sum::<usize>();
                }
                pixels.push((sum / (SAMPLES * SAMPLES)) as u8);
            }
        }
    }
    pixels
}

/// Draws cells into a picture: each pixel has the colour of the cell at its centre.
fn fill(
    pixels: &mut [u8],
    scene: &Scene,
    at: (f64, f64),
    size: (f64, f64),
    levels: &Array2<Option<f64>>,
) {
    let (rows, columns) = levels.dim();
    let palette = scene::palette();
    let cell = |pixel: usize, start: f64, length: f64, cells: usize| {
        let part = (pixel as f64 + 0.5 - start) / length;
        let inside = (0.0..1.0).contains(&part);
        inside.then(|| ((part * cells as f64) as usize).min(cells.saturating_sub(1)))
    };
    for y in 0..scene.height {
        let Some(row) = cell(y, at.1, size.1, rows) else {
            continue;
        };
        for x in 0..scene.width {
            let column = cell(x, at.0, size.0, columns);
            if let Some(&level) = column.and_then(|column| levels.get((row, column))) {
                let place = (y * scene.width + x) * 3;
                let colour = palette[usize::from(scene::index(level))];
                pixels[place..place + 3].copy_from_slice(&colour);
            }
        }
    }
}

/// Returns cells as a PNG with one pixel per cell, whose colours are numbers of the palette.
fn encode_levels(levels: &Array2<Option<f64>>) -> Result<Vec<u8>, png::EncodingError> {
    let (rows, columns) = levels.dim();
    if levels.is_empty() {
        return encode_levels(&Array2::from_elem((1, 1), None));
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, columns as u32, rows as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(scene::palette().concat());
    let cells: Vec<u8> = levels.iter().map(|&level| scene::index(level)).collect();
    encoder.write_header()?.write_image_data(&cells)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::chart::{Chart, Grid, Histogram};
    use crate::plot::layout;
    use ndarray::arr2;

    fn decoded(bytes: &[u8]) -> (usize, usize, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (info.width as usize, info.height as usize, pixels)
    }

    #[test]
    fn a_page_comes_back_from_its_file() {
        let histogram = Histogram::of([1.0, 2.0, 2.0].into_iter(), 2);
        let scene = layout::page(&Chart::Histogram(histogram), "título Ω");
        let (width, height, pixels) = decoded(&png(&scene).unwrap());
        assert_eq!((width, height), (scene.width, scene.height));
        let at = |x: usize, y: usize| &pixels[(y * width + x) * 3..][..3];
        assert_eq!(at(1, 1), [255, 255, 255], "the page");
        let blue = pixels
            .chunks(3)
            .filter(|pixel| *pixel == [31, 119, 180])
            .count();
        // One bar is as high as the chart area, the other half as high.
        let expected = 680.0 / 2.0 * 0.94 * 400.0 * 1.5;
        assert!(
            (blue as f64 / expected - 1.0).abs() < 0.02,
            "{blue} of {expected}"
        );
        // The title is drawn, in shades of grey.
        let title = (0..width).flat_map(|x| (0..40).map(move |y| (x, y)));
        let shades: std::collections::HashSet<u8> = title.map(|(x, y)| at(x, y)[0]).collect();
        assert!(shades.len() > 10, "{shades:?}");
        assert!(text_width("mm", 13.0) > text_width("ii", 13.0));
    }

    #[test]
    fn what_a_title_holds_does_not_end_the_text() {
        let histogram = Histogram::of([1.0, 2.0].into_iter(), 2);
        let svg = svg(&layout::page(&Chart::Histogram(histogram), "a<b>&c")).unwrap();
        assert!(svg.contains("a&lt;b&gt;&amp;c\n</text>"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 3, "the page and two bars");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn cells_are_one_image() {
        let grid = Grid::of(&arr2(&[[0.0, 10.0], [5.0, f64::NAN]]), 4, 4);
        let scene = layout::page(&Chart::Heat(grid), "");
        let svg = svg(&scene).unwrap();
        assert_eq!(
            svg.matches("<image").count(),
            2,
            "the cells and the colour bar"
        );
        let start = svg.find("base64,").unwrap() + 7;
        let end = start + svg[start..].find('"').unwrap();
        let (width, height, indices) = decoded(&STANDARD.decode(&svg[start..end]).unwrap());
        // The decoder turns the palette into colours.
        let colours: Vec<&[u8]> = indices.chunks(indices.len() / 4).collect();
        assert_eq!((width, height), (2, 2));
        let expected =
            [0.0, 1.0, 0.5].map(|level| scene::palette()[usize::from(scene::index(Some(level)))]);
        match colours[0].len() {
            1 => assert_eq!(indices, [0, 254, 127, 255]),
            _ => assert_eq!(colours[..3], expected.each_ref().map(|it| &it[..])),
        }
        let (width, _, pixels) = decoded(&png(&scene).unwrap());
        let Shape::Image { at, size, .. } = &scene.shapes[0] else {
            panic!("the first shape is the image");
        };
        let quarter = |x: f64, y: f64| {
            let (x, y) = (at.0 + size.0 * x, at.1 + size.1 * y);
            let place = (y as usize * width + x as usize) * 3;
            [pixels[place], pixels[place + 1], pixels[place + 2]]
        };
        assert_eq!(quarter(0.25, 0.25), [68, 1, 84]);
        assert_eq!(quarter(0.75, 0.25), [253, 231, 37]);
        assert_eq!(quarter(0.75, 0.75), scene::MISSING);
    }
}
