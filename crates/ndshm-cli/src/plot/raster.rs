//! Draws a page as a PNG file.

use font8x8::UnicodeFonts;

use super::scene::{Anchor, Colour, Scene, Shape};

/// Draws the page and encodes it.
pub fn encode(scene: &Scene) -> Result<Vec<u8>, png::EncodingError> {
    let mut page = Page::new(scene.width, scene.height);
    for shape in &scene.shapes {
        match shape {
            Shape::Rectangle { at, size, colour } => page.fill(*at, *size, *colour),
            Shape::Line { points, colour } => {
                for ends in points.windows(2) {
                    page.line(ends[0], ends[1], *colour);
                }
                if let [one] = points[..] {
                    page.line(one, one, *colour);
                }
            }
            Shape::Text { at, anchor, text } => page.text(*at, *anchor, text),
        }
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, scene.width as u32, scene.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&page.pixels)?;
    Ok(bytes)
}

/// Width and height of a letter in pixels.
const GLYPH: i64 = 8;

const INK: Colour = [40, 40, 40];

struct Page {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Page {
    fn new(width: usize, height: usize) -> Page {
        Page {
            width,
            height,
            pixels: vec![255; width * height * 3],
        }
    }

    /// Sets a pixel; ignores pixels beyond the page.
    fn set(&mut self, x: i64, y: i64, colour: Colour) {
        let inside = |at: i64, len: usize| usize::try_from(at).ok().filter(|&at| at < len);
        if let (Some(x), Some(y)) = (inside(x, self.width), inside(y, self.height)) {
            let at = (y * self.width + x) * 3;
            self.pixels[at..at + 3].copy_from_slice(&colour);
        }
    }

    fn fill(&mut self, at: (f64, f64), size: (f64, f64), colour: Colour) {
        let end = |from: f64, len: f64| (from + len).round() as i64;
        for y in at.1.round() as i64..end(at.1, size.1) {
            for x in at.0.round() as i64..end(at.0, size.0) {
                self.set(x, y, colour);
            }
        }
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: Colour) {
        let steps = (to.0 - from.0)
            .abs()
            .max((to.1 - from.1).abs())
            .ceil()
            .max(1.0);
        for step in 0..=steps as u32 {
            let part = f64::from(step) / steps;
            let between = |a: f64, b: f64| (a + (b - a) * part).round() as i64;
            self.set(between(from.0, to.0), between(from.1, to.1), colour);
        }
    }

    /// Draws text. `at` is the foot of the text, as in SVG.
    fn text(&mut self, at: (f64, f64), anchor: Anchor, text: &str) {
        let width = text.chars().count() as i64 * GLYPH;
        let left = at.0 as i64
            - match anchor {
                Anchor::Start => 0,
                Anchor::Middle => width / 2,
                Anchor::End => width,
            };
        for (number, letter) in text.chars().enumerate() {
            let known = font8x8::BASIC_FONTS.get(letter);
            let rows = known.or_else(|| font8x8::LATIN_FONTS.get(letter));
            let rows = rows.or_else(|| font8x8::BASIC_FONTS.get('?'));
            for (down, row) in rows.unwrap_or_default().into_iter().enumerate() {
                // The lowest bit is the leftmost pixel.
                for across in (0..GLYPH).filter(|across| row >> across & 1 == 1) {
                    let x = left + number as i64 * GLYPH + across;
                    self.set(x, at.1 as i64 - GLYPH + down as i64, INK);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::chart::{Chart, Histogram};
    use crate::plot::scene;

    #[test]
    fn a_page_comes_back_from_its_file() {
        let histogram = Histogram::of([1.0, 2.0, 2.0].into_iter(), 2);
        let scene = scene::of(&Chart::Histogram(histogram), "título");
        let bytes = encode(&scene).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(
            (info.width as usize, info.height as usize),
            (scene.width, scene.height)
        );
        let at = |x: usize, y: usize| &pixels[(y * scene.width + x) * 3..][..3];
        assert_eq!(at(1, 1), [255, 255, 255], "the page");
        let blue = pixels
            .chunks(3)
            .filter(|pixel| *pixel == [31, 119, 180])
            .count();
        let area = 800.0 - 90.0 - 20.0;
        // One bar is as high as the chart area, the other half as high.
        let expected = area / 2.0 * 0.95 * 400.0 * 1.5;
        assert!(
            (blue as f64 / expected - 1.0).abs() < 0.01,
            "{blue} of {expected}"
        );
    }
}
