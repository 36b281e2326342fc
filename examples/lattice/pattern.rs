//! Visible results: a count of spots, and an image.

use ndarray::{Array2, ArrayView2};

/// Threshold of V in a spot. V is 0 in the sea, and 0.2 to 0.4 in patterns.
pub const SPOT: f32 = 0.15;

/// Counts the connected sets of cells with V above [`SPOT`], by the four neighbours on the torus.
pub fn spots(v: ArrayView2<'_, f32>) -> usize {
    let (height, width) = v.dim();
    let mut is_new: Array2<bool> = v.mapv(|v| v > SPOT);
    let mut spots = 0;
    let mut ahead = Vec::new();
    for start in ndarray::indices((height, width)) {
        if !is_new[start] {
            continue;
        }
        spots += 1;
        ahead.push(start);
        while let Some((row, column)) = ahead.pop() {
            if !std::mem::take(&mut is_new[[row, column]]) {
                continue;
            }
            ahead.extend([
                ((row + 1) % height, column),
                ((row + height - 1) % height, column),
                (row, (column + 1) % width),
                (row, (column + width - 1) % width),
            ]);
        }
    }
    spots
}

/// Returns an image of V in the portable pixmap format, binary (P6), one pixel per cell.
pub fn ppm(v: ArrayView2<'_, f32>) -> Vec<u8> {
    let (height, width) = v.dim();
    let mut image = format!("P6\n{width} {height}\n255\n").into_bytes();
    image.extend(v.iter().flat_map(|&v| colour(v)));
    image
}

/// Returns the colour of a value, from dark blue over green to light yellow.
fn colour(v: f32) -> [u8; 3] {
    const RAMP: [[f32; 3]; 4] = [
        [13.0, 20.0, 50.0],
        [25.0, 90.0, 125.0],
        [90.0, 185.0, 120.0],
        [250.0, 240.0, 170.0],
    ];
    let place = (v / 0.4).clamp(0.0, 1.0) * (RAMP.len() - 1) as f32;
    let below = (place as usize).min(RAMP.len() - 2);
    let share = place - below as f32;
    std::array::from_fn(|channel| {
        let (low, high) = (RAMP[below][channel], RAMP[below + 1][channel]);
        (low + share * (high - low)).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spots_across_the_seam_are_one() {
        let mut v = Array2::zeros((6, 7));
        assert_eq!(spots(v.view()), 0);
        for at in [[0, 3], [5, 3], [0, 4], [2, 0], [2, 6]] {
            v[at] = 0.3;
        }
        assert_eq!(spots(v.view()), 2);
        // Cells that touch only at a corner are not connected.
        v[[3, 5]] = 0.3;
        assert_eq!(spots(v.view()), 3);
    }

    #[test]
    fn the_image_has_a_pixel_a_cell() {
        let v = Array2::from_shape_fn((2, 3), |(row, _)| row as f32);
        let image = ppm(v.view());
        let header = b"P6\n3 2\n255\n";
        assert!(image.starts_with(header));
        let pixels = &image[header.len()..];
        assert_eq!(pixels.len(), 2 * 3 * 3);
        assert_eq!(
            (&pixels[..3], &pixels[15..]),
            (&[13, 20, 50][..], &[250, 240, 170][..])
        );
    }
}
