// Sound as the model takes it: the sample rate of a file, resampling, and the spectrogram of the
// front-end. The worker gets the text of this function, so it uses nothing outside of it.
"use strict";

function rfkerasSound() {
  // Kaiser-windowed sincs, fitted to the impulse responses of soxr's HQ, because its transition
  // band is inside of the spectrogram: cutoff as a part of half the lower of the two rates, and
  // samples of that rate to each side. soxr has one for whole ratios and one for others.
  const OF_WHOLE_RATIOS = { cutoff: 0.9568718, halfWidth: 97.25, beta: 13.04 };
  const OF_OTHERS = { cutoff: 0.956842, halfWidth: 110.3, beta: 16.03 };
  const MOST_PHASES = 4096; // rates with more in common need fewer; others interpolate

  const text = (bytes, at, count) => String.fromCharCode(...bytes.subarray(at, at + count));

  // The sample rate in the header of a file, in Hz; null if the format is unknown.
  function headerRateHz(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    try {
      const start = afterId3(bytes, 0);
      const kind = text(bytes, start, 4);
      if (["RIFF", "RIFX", "RF64"].includes(kind)) return wavRateHz(bytes, view, kind !== "RIFX");
      if (kind === "fLaC") return flacRateHz(bytes, start + 8);
      if (kind === "OggS") return oggRateHz(bytes, view);
      if (kind === "\x1a\x45\xdf\xa3") return webmRateHz(bytes, view);
      if (text(bytes, 4, 4) === "ftyp") return mp4RateHz(bytes, view, 0, bytes.length);
      return mpegRateHz(bytes, start);
    } catch (error) {
      if (error instanceof RangeError) return null; // the file ends within its header
      throw error;
    }
  }

  function afterId3(bytes, at) {
    if (text(bytes, at, 3) !== "ID3") return at;
    const size = bytes.subarray(at + 6, at + 10).reduce((sum, byte) => sum * 128 + byte, 0);
    return afterId3(bytes, at + 10 + size + (bytes[at + 5] & 16 ? 10 : 0));
  }

  function wavRateHz(bytes, view, little) {
    for (let at = 12; at < bytes.length; ) {
      if (text(bytes, at, 4) === "fmt ") return view.getUint32(at + 12, little);
      const size = view.getUint32(at + 4, little);
      at += 8 + size + (size % 2);
    }
    return null;
  }

  const flacRateHz = (bytes, block) =>
    (bytes[block + 10] << 12) | (bytes[block + 11] << 4) | (bytes[block + 12] >> 4);

  function oggRateHz(bytes, view) {
    const packet = 27 + bytes[26];
    if (text(bytes, packet, 7) === "\x01vorbis") return view.getUint32(packet + 12, true);
    if (text(bytes, packet, 8) === "OpusHead") return 48000;
    if (text(bytes, packet, 5) === "\x7fFLAC") return flacRateHz(bytes, packet + 17);
    return null;
  }

  function mp4RateHz(bytes, view, first, stop) {
    for (let at = first; at + 8 <= stop; ) {
      const kind = text(bytes, at + 4, 4);
      let size = view.getUint32(at);
      let head = 8;
      if (size === 1) {
        size = Number(view.getBigUint64(at + 8));
        head = 16;
      }
      const end = size === 0 ? stop : at + size;
      if (kind === "stsd") {
        const entry = at + 16;
        const isSound = ["mp4a", "alac", "fLaC", "Opus"].includes(text(bytes, entry + 4, 4));
        return isSound ? view.getUint16(entry + 32) : null;
      }
      if (["moov", "trak", "mdia", "minf", "stbl"].includes(kind)) {
        const found = mp4RateHz(bytes, view, at + head, end);
        if (found !== null) return found;
      }
      if (end <= at) return null;
      at = end;
    }
    return null;
  }

  // The element SamplingFrequency, 4 or 8 bytes long; Opus is decoded at 48 kHz.
  function webmRateHz(bytes, view) {
    const stop = Math.min(bytes.length - 10, 65536);
    for (let at = 4; at < stop; at += 1) {
      if (text(bytes, at, 6) === "A_OPUS") return 48000;
      if (bytes[at] !== 0xb5 || ![0x84, 0x88].includes(bytes[at + 1])) continue;
      const long = bytes[at + 1] === 0x88;
      return long ? view.getFloat64(at + 2) : view.getFloat32(at + 2);
    }
    return null;
  }

  // MP3, and AAC in ADTS.
  function mpegRateHz(bytes, first) {
    const stop = Math.min(bytes.length - 4, first + 65536);
    for (let at = first; at < stop; at += 1) {
      if (bytes[at] !== 255 || bytes[at + 1] < 224) continue;
      const version = (bytes[at + 1] >> 3) & 3;
      if (((bytes[at + 1] >> 1) & 3) === 0) {
        const rates = [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000];
        const rate = [...rates, 11025, 8000, 7350][(bytes[at + 2] >> 2) & 15];
        if (version > 1 && rate) return rate;
        continue;
      }
      const rate = [44100, 48000, 32000][(bytes[at + 2] >> 2) & 3];
      if (rate && version !== 1 && bytes[at + 2] >> 4 !== 15) return rate >> [2, 0, 1, 0][version];
    }
    return null;
  }

  // Resampling

  function bessel(x) {
    let sum = 1;
    let term = 1;
    for (let k = 1; term > 1e-18 * sum; k += 1) {
      term *= (x / (2 * k)) ** 2;
      sum += term;
    }
    return sum;
  }

  function gcd(a, b) {
    return b === 0 ? a : gcd(b, a % b);
  }

  // A waveform at another rate. `read(start, stop)` computes a span of it: the same samples for
  // whatever spans. `length` is rounded as `rfkeras.audio.io.resampled_length` does it.
  function resampler(samples, fromHz, toHz) {
    if (fromHz === toHz) {
      return { length: samples.length, read: (start, stop) => samples.subarray(start, stop) };
    }
    const divisor = gcd(fromHz, toHz);
    const [up, down] = [toHz / divisor, fromHz / divisor];
    const stretch = Math.max(1, fromHz / toHz); // source samples per sample of the lower rate
    const { beta, ...filter } = up === 1 || down === 1 ? OF_WHOLE_RATIOS : OF_OTHERS;
    const half = filter.halfWidth * stretch;
    const reach = Math.ceil(half);
    const taps = 2 * reach;
    const phases = Math.min(up, MOST_PHASES);
    const cutoff = filter.cutoff / stretch;
    const rows = new Float64Array((phases + 1) * taps);
    const peak = bessel(beta);
    for (let phase = 0; phase <= phases; phase += 1) {
      for (let tap = 0; tap < taps; tap += 1) {
        const t = tap - reach + 1 - phase / phases; // of a source sample, from the output's time
        if (Math.abs(t) >= half) continue;
        const x = Math.PI * cutoff * t;
        const window = bessel(beta * Math.sqrt(1 - (t / half) ** 2)) / peak;
        rows[phase * taps + tap] = cutoff * (x === 0 ? 1 : Math.sin(x) / x) * window;
      }
    }
    const product = (row, first, from, to) => {
      let sum = 0;
      for (let tap = from; tap < to; tap += 1) sum += rows[row + tap] * samples[first + tap];
      return sum;
    };
    const read = (start, stop) => {
      const out = new Float32Array(stop - start);
      for (let i = start; i < stop; i += 1) {
        const whole = Math.floor((i * down) / up);
        const place = ((i * down) % up) * (phases / up);
        const row = Math.floor(place);
        const first = whole - reach + 1;
        const [from, to] = [Math.max(0, -first), Math.min(taps, samples.length - first)];
        let sum = product(row * taps, first, from, to);
        if (row !== place) {
          const next = product((row + 1) * taps, first, from, to);
          sum += (place - row) * (next - sum);
        }
        out[i - start] = sum;
      }
      return out;
    };
    return { length: Math.floor((2 * samples.length * toHz + fromHz) / (2 * fromHz)), read };
  }

  // The spectrogram

  // A Fourier transform in place, for lengths that are powers of 2.
  function powerOfTwoTransform(n) {
    const bits = Math.log2(n);
    const [cos, sin] = [new Float64Array(n / 2), new Float64Array(n / 2)];
    for (let k = 0; k < n / 2; k += 1) {
      cos[k] = Math.cos((2 * Math.PI * k) / n);
      sin[k] = -Math.sin((2 * Math.PI * k) / n);
    }
    const reversed = new Uint32Array(n);
    for (let k = 0; k < n; k += 1) {
      reversed[k] = (reversed[k >> 1] >> 1) | ((k & 1) << (bits - 1));
    }
    return (re, im) => {
      for (let k = 0; k < n; k += 1) {
        const other = reversed[k];
        if (other > k) {
          [re[k], re[other]] = [re[other], re[k]];
          [im[k], im[other]] = [im[other], im[k]];
        }
      }
      for (let size = 2; size <= n; size *= 2) {
        const [part, turn] = [size / 2, n / size];
        for (let first = 0; first < n; first += size) {
          for (let k = 0; k < part; k += 1) {
            const [a, b] = [first + k, first + k + part];
            const [c, s] = [cos[k * turn], sin[k * turn]];
            const x = c * re[b] - s * im[b];
            const y = s * re[b] + c * im[b];
            re[b] = re[a] - x;
            im[b] = im[a] - y;
            re[a] += x;
            im[a] += y;
          }
        }
      }
    };
  }

  // A Fourier transform in place, for any length (Bluestein's algorithm).
  function transform(n) {
    if (n > 1 && Number.isInteger(Math.log2(n))) return powerOfTwoTransform(n);
    const size = 2 ** Math.ceil(Math.log2(2 * n));
    const inner = powerOfTwoTransform(size);
    const [cos, sin] = [new Float64Array(n), new Float64Array(n)];
    const [chirpRe, chirpIm] = [new Float64Array(size), new Float64Array(size)];
    for (let k = 0; k < n; k += 1) {
      const angle = (Math.PI * ((k * k) % (2 * n))) / n;
      [cos[k], sin[k]] = [Math.cos(angle), Math.sin(angle)];
      for (const place of [k, (size - k) % size]) {
        [chirpRe[place], chirpIm[place]] = [cos[k], sin[k]];
      }
    }
    inner(chirpRe, chirpIm);
    const [workRe, workIm] = [new Float64Array(size), new Float64Array(size)];
    return (re, im) => {
      workRe.fill(0);
      workIm.fill(0);
      for (let k = 0; k < n; k += 1) {
        workRe[k] = re[k] * cos[k] + im[k] * sin[k];
        workIm[k] = im[k] * cos[k] - re[k] * sin[k];
      }
      inner(workRe, workIm);
      // The conjugate of the product, so that the same transform goes back.
      for (let k = 0; k < size; k += 1) {
        const x = workRe[k] * chirpRe[k] - workIm[k] * chirpIm[k];
        workIm[k] = -(workRe[k] * chirpIm[k] + workIm[k] * chirpRe[k]);
        workRe[k] = x;
      }
      inner(workRe, workIm);
      for (let k = 0; k < n; k += 1) {
        const [x, y] = [workRe[k] / size, -workIm[k] / size];
        re[k] = x * cos[k] + y * sin[k];
        im[k] = y * cos[k] - x * sin[k];
      }
    };
  }

  // Levels in dB as `rfkeras.frontend.numpy_mel` computes them, from the numbers that it writes.
  // Returns a function from channels to { frames, levels }, levels (frames, bands, channels).
  function melSpectrogram(numbers) {
    const { n_fft: n, window_samples: size, hop_samples: hop, offset_db: offsets } = numbers;
    const bands = offsets.length;
    const bins = Math.floor(n / 2) + 1;
    const fourier = transform(n);
    const period = size - (size % 2); // the window is symmetric if its length is odd
    const window = Float32Array.from(
      { length: size },
      (_, k) => (period ? 0.5 - 0.5 * Math.cos((2 * Math.PI * k) / period) : 1),
    );
    const filterBins = Uint32Array.from(numbers.bins);
    const filterBands = Uint32Array.from(numbers.bands);
    const weights = Float32Array.from(numbers.weights);
    const half = Math.floor(size / 2);
    const [re, im] = [new Float64Array(n), new Float64Array(n)];
    const powers = [new Float32Array(bins), new Float32Array(bins)];
    const values = new Float64Array(bands);

    const decibels = (power, floor) => 10 * Math.log10(Math.max(power, floor));

    // The sample before the start or after the end is that as far inside.
    function mirrored(samples, length, place) {
      const period = Math.max(1, 2 * (length - 1));
      const turn = ((place % period) + period) % period;
      const at = turn < length ? turn : period - turn;
      return at < samples.length ? samples[at] : 0;
    }

    function fill(samples, length, frame, into) {
      into.fill(0);
      const first = frame * hop - half;
      if (first >= 0 && first + size <= samples.length) {
        for (let k = 0; k < size; k += 1) into[k] = samples[first + k] * window[k];
      } else {
        for (let k = 0; k < size; k += 1) {
          into[k] = mirrored(samples, length, first + k) * window[k];
        }
      }
    }

    // Two frames at a time: one is the real part, the other the imaginary part.
    function measure(samples, length, frame) {
      fill(samples, length, frame, re);
      fill(samples, length, frame + 1, im);
      fourier(re, im);
      for (let k = 0; k < bins; k += 1) {
        const mirror = (n - k) % n;
        const [a, b] = [re[k] + re[mirror], im[k] - im[mirror]];
        const [c, d] = [im[k] + im[mirror], re[mirror] - re[k]];
        powers[0][k] = (a * a + b * b) / 4;
        powers[1][k] = (c * c + d * d) / 4;
      }
    }

    function filter(power) {
      values.fill(0);
      for (let i = 0; i < weights.length; i += 1) {
        values[filterBands[i]] += weights[i] * power[filterBins[i]];
      }
      return values;
    }

    function loudest(channels, length, frames) {
      let most = 0;
      for (const samples of channels) {
        for (let frame = 0; frame < frames; frame += 2) {
          measure(samples, length, frame);
          for (const power of frame + 1 < frames ? powers : [powers[0]]) {
            const measured = numbers.decibels_first ? power : filter(power);
            for (const value of measured) most = Math.max(most, value);
          }
        }
      }
      return most;
    }

    return (channels) => {
      const length = Math.max(channels[0].length, numbers.min_samples);
      const frames = Math.floor(length / hop) + 1;
      const levels = new Float32Array(frames * bands * channels.length);
      let floor = Math.fround(numbers.amin);
      if (numbers.range_db !== null) {
        const lowest = loudest(channels, length, frames) * 10 ** (-numbers.range_db / 10);
        floor = Math.max(floor, Math.fround(lowest));
      }
      const logarithms = new Float32Array(bins);
      channels.forEach((samples, channel) => {
        for (let frame = 0; frame < frames; frame += 1) {
          if (frame % 2 === 0) measure(samples, length, frame);
          const power = powers[frame % 2];
          let row;
          if (numbers.decibels_first) {
            for (let k = 0; k < bins; k += 1) logarithms[k] = decibels(power[k], floor);
            row = filter(logarithms);
          } else {
            row = filter(power).map((value) => decibels(value, floor));
          }
          for (let band = 0; band < bands; band += 1) {
            const place = (frame * bands + band) * channels.length + channel;
            levels[place] = row[band] + offsets[band];
          }
        }
      });
      return { frames, levels };
    };
  }

  return { headerRateHz, resampler, melSpectrogram };
}
