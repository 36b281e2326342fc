//! A page of shapes, for files.

use ndarray::Array2;

/// Red, green, blue.
pub type Colour = [u8; 3];

/// The colour of axes and texts.
pub const INK: Colour = [40, 40, 40];
/// The colour of the lines behind the numbers.
pub const FAINT: Colour = [225, 225, 225];
/// The colour of cells without a number.
pub const MISSING: Colour = [200, 200, 200];

/// The colours of lines: the palette "tab10" of matplotlib.
pub const LINES: [Colour; 10] = [
    [31, 119, 180],
    [255, 127, 14],
    [44, 160, 44],
    [214, 39, 40],
    [148, 103, 189],
    [140, 86, 75],
    [227, 119, 194],
    [127, 127, 127],
    [188, 189, 34],
    [23, 190, 207],
];

/// A shape. Coordinates are in pixels from the upper left corner.
pub enum Shape {
    /// A filled rectangle.
    Rectangle {
        at: (f64, f64),
        size: (f64, f64),
        colour: Colour,
    },
    /// A line through points.
    Line {
        points: Vec<(f64, f64)>,
        width: f64,
        colour: Colour,
    },
    /// A text, vertically centred.
    Text {
        at: (f64, f64),
        anchor: Anchor,
        size: f64,
        text: String,
    },
    /// Cells with a colour each, stretched to the size. Levels as those of [`heat_colour`].
    Image {
        at: (f64, f64),
        size: (f64, f64),
        levels: Array2<Option<f64>>,
    },
}

/// The point of a text that is at its coordinates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A page.
pub struct Scene {
    pub width: usize,
    pub height: usize,
    pub shapes: Vec<Shape>,
}

/// Number of colours in [`palette`], one for each level and the last for cells without a number.
const COLOURS: usize = 256;

/// Returns the colours of an image.
pub fn palette() -> [Colour; COLOURS] {
    std::array::from_fn(|at| match at {
        255 => MISSING,
        at => heat_colour(at as f64 / 254.0),
    })
}

/// Returns the number of a level's colour in the palette.
pub fn index(level: Option<f64>) -> u8 {
    level.map_or(255, |level| (level.clamp(0.0, 1.0) * 254.0).round() as u8)
}

/// Maps a level from 0 to 1 to a colour from dark blue over green to yellow.
pub fn heat_colour(level: f64) -> Colour {
    // Five points of the map "viridis" of matplotlib, by N. Smith and S. van der Walt (CC0).
    const POINTS: [[f64; 3]; 5] = [
        [68.0, 1.0, 84.0],
        [59.0, 82.0, 139.0],
        [33.0, 145.0, 140.0],
        [94.0, 201.0, 98.0],
        [253.0, 231.0, 37.0],
    ];
    let place = level.clamp(0.0, 1.0) * 4.0;
    let below = (place as usize).min(3);
    let part = place - below as f64;
    std::array::from_fn(|at| {
        (POINTS[below][at] * (1.0 - part) + POINTS[below + 1][at] * part).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_go_from_dark_to_light() {
        assert_eq!(heat_colour(0.0), [68, 1, 84]);
        assert_eq!(heat_colour(1.0), [253, 231, 37]);
        assert_eq!(heat_colour(f64::NAN.max(0.5)), [33, 145, 140]);
        let palette = palette();
        assert_eq!(palette[usize::from(index(Some(0.5)))], [33, 145, 140]);
        assert_eq!(palette[usize::from(index(Some(1.0)))], [253, 231, 37]);
        assert_eq!(palette[usize::from(index(None))], MISSING);
    }
}
