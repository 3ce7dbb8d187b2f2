//! The generator behind NumPy's legacy `RandomState`: masks of the public MRI benchmark are defined by its bits.

const N: usize = 624;
const M: usize = 397;

/// Mersenne Twister MT19937 (Matsumoto and Nishimura, ACM TOMACS 8, 1998), seeded and read out as `numpy.random.RandomState` does.
#[derive(Clone)]
pub struct Mt19937 {
    state: [u32; N],
    index: usize,
}

impl std::fmt::Debug for Mt19937 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mt19937(at {} of {N})", self.index)
    }
}

impl Mt19937 {
    /// `RandomState(seed)` of a whole number: `init_genrand`.
    pub fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let previous = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(previous ^ (previous >> 30)).wrapping_add(i as u32);
        }
        Self { state, index: N }
    }

    /// `RandomState(key)` of a tuple of numbers: `init_by_array`. An empty key is read as `[0]`.
    pub fn from_key(key: &[u32]) -> Self {
        let key = if key.is_empty() { &[0][..] } else { key };
        let mut state = Self::new(19_650_218).state;
        let mut i = 1;
        let step = |i: usize, state: &mut [u32; N]| {
            if i + 1 < N {
                return i + 1;
            }
            state[0] = state[N - 1];
            1
        };
        let mixed = |i: usize, state: &[u32; N], factor: u32| {
            state[i] ^ (state[i - 1] ^ (state[i - 1] >> 30)).wrapping_mul(factor)
        };
        for k in 0..N.max(key.len()) {
            let j = k % key.len();
            state[i] = mixed(i, &state, 1_664_525).wrapping_add(key[j]).wrapping_add(j as u32);
            i = step(i, &mut state);
        }
        for _ in 1..N {
            state[i] = mixed(i, &state, 1_566_083_941).wrapping_sub(i as u32);
            i = step(i, &mut state);
        }
        state[0] = 0x8000_0000;
        Self { state, index: N }
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.index == N {
            self.refill();
        }
        let mut y = self.state[self.index];
        self.index += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn refill(&mut self) {
        for i in 0..N {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ twist;
        }
        self.index = 0;
    }

    /// `uniform()`: a number in `[0, 1)` of 53 bits.
    pub fn uniform(&mut self) -> f64 {
        let (a, b) = (self.next_u32() >> 5, self.next_u32() >> 6);
        (f64::from(a) * 67_108_864.0 + f64::from(b)) / 9_007_199_254_740_992.0
    }

    /// `randint(0, high)`: masked rejection; draws nothing where there is one choice. `high` of 0 is read as 1.
    pub fn below(&mut self, high: u32) -> u32 {
        let largest = high.saturating_sub(1);
        if largest == 0 {
            return 0;
        }
        let mask = u32::MAX >> largest.leading_zeros();
        loop {
            let value = self.next_u32() & mask;
            if value <= largest {
                return value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NumPy 2.4: `RandomState(...)`, the draws in the order of the calls.
    #[test]
    fn draws_what_numpy_draws() {
        assert_eq!(Mt19937::new(5489).next_u32(), 3_499_211_612);
        let mut rng = Mt19937::new(0);
        assert_eq!([rng.uniform(), rng.uniform()], [0.548_813_503_927_324_8, 0.715_189_366_372_419_5]);
        assert_eq!((rng.uniform(), rng.below(1000)), (0.602_763_376_071_643_9, 707));

        let key: Vec<u32> = "file1000000.h5".chars().map(u32::from).collect();
        let mut rng = Mt19937::from_key(&key);
        assert_eq!([(); 4].map(|()| rng.next_u32()), [4_288_250_345, 969_643_274, 2_117_938_922, 555_523_212]);
        let mut rng = Mt19937::from_key(&key);
        assert_eq!([(); 8].map(|()| rng.below(4)), [1, 2, 2, 0, 1, 0, 2, 1]);
        assert_eq!([(); 8].map(|()| rng.below(7)), [3, 0, 0, 4, 2, 4, 4, 1]);
        let expected = [0.495_936_506_326_986_5, 0.555_020_571_938_855_9, 0.103_875_710_376_445_38];
        assert_eq!([(); 3].map(|()| rng.uniform()), expected);
        assert_eq!((rng.below(1), rng.uniform(), rng.below(100)), (0, 0.889_967_351_549_375_7, 25));
    }
}
