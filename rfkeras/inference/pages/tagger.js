// Tags of a waveform, as `rfkeras.inference` finds them: chunks, pooling, and the data of a
// song's page. Both functions run in a worker, which gets their text.
"use strict";

// What is said of a waveform once the model has computed its frames.
function rfkerasTags(model) {
  const { labels, thresholds, exclusive, page } = model;
  const limits = thresholds === null ? null : Float32Array.from(thresholds);

  // The pool of frames that arrive in parts; see RunningPool.
  function runningPool() {
    const n = labels.length;
    const peak = new Float64Array(n).fill(-Infinity);
    const total = new Float64Array(n).fill(model.pooling === "log_mean_exp" ? -Infinity : 0);
    const weight = new Float64Array(n);
    let count = 0;

    function addOne(tag, logit, logWeight) {
      if (model.pooling === "max") {
        peak[tag] = Math.max(peak[tag], logit);
      } else if (model.pooling === "log_mean_exp") {
        const [low, high] = [Math.min(total[tag], logit), Math.max(total[tag], logit)];
        total[tag] = high === -Infinity ? high : high + Math.log1p(Math.exp(low - high));
      } else if (logWeight === null) {
        total[tag] += logit;
      } else {
        const highest = Math.max(peak[tag], logWeight);
        const [share, fade] = [Math.exp(logWeight - highest), Math.exp(peak[tag] - highest)];
        total[tag] = fade * total[tag] + share * logit;
        weight[tag] = fade * weight[tag] + share;
        peak[tag] = highest;
      }
    }

    function add(logits, logWeights) {
      logits.forEach((logit, i) => addOne(i % n, logit, logWeights && logWeights[i]));
      count += logits.length / n;
    }

    function result() {
      if (model.pooling === "max") return Float32Array.from(peak);
      return Float32Array.from(total, (sum, tag) => {
        if (model.pooling === "log_mean_exp") return sum - Math.log(count);
        return sum / (model.pooling === "attention" ? weight[tag] : count);
      });
    }

    return { add, result };
  }

  function scoresOf(pooled) {
    if (!model.are_logits) return pooled;
    if (!exclusive) return pooled.map((logit) => 0.5 * (1 + Math.tanh(0.5 * logit)));
    const highest = Math.max(...pooled);
    const powers = pooled.map((logit) => Math.exp(logit - highest));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((power) => power / sum);
  }

  function applying(scores) {
    const highest = Math.max(...scores);
    return Array.from(
      scores,
      (score, tag) =>
        (limits === null || score >= limits[tag]) && (!exclusive || score === highest),
    );
  }

  // The seconds in which each tag applies.
  function durations(frames, seconds) {
    const n = labels.length;
    const count = frames.length / n;
    const { first_ms: first, stride_ms: stride } = model.frames;
    const within = (ms) => Math.min(Math.max(ms / 1000, 0), seconds);
    const edge = (frame) =>
      within(
        frame < count
          ? Math.max(first + stride * frame - stride / 2, 0)
          : first + stride * (count - 1) + stride / 2,
      );
    const sums = new Array(n).fill(0);
    const starts = new Array(n).fill(null);
    for (let frame = 0; frame <= count; frame += 1) {
      const now = frame < count && applying(frames.subarray(frame * n, (frame + 1) * n));
      const isEmpty = frame < count && edge(frame + 1) <= edge(frame);
      for (let tag = 0; tag < n; tag += 1) {
        const on = now && now[tag] && !isEmpty;
        if (on && starts[tag] === null) starts[tag] = edge(frame);
        if (!on && starts[tag] !== null) {
          sums[tag] += edge(frame) - starts[tag];
          starts[tag] = null;
        }
      }
    }
    return sums;
  }

  // Whole numbers to 255 that keep their side of the thresholds.
  function quantised(score, tag) {
    let value = Math.round(score * 255);
    if (limits !== null) {
      const lowest = Math.ceil(thresholds[tag] * 255 - 1e-6);
      value = score >= limits[tag] ? Math.max(value, lowest) : Math.min(value, lowest - 1);
    }
    return Math.min(Math.max(value, 0), 255);
  }

  function base64(bytes) {
    let binary = "";
    for (let at = 0; at < bytes.length; at += 8192) {
      binary += String.fromCharCode(...bytes.subarray(at, at + 8192));
    }
    return btoa(binary);
  }

  const rounded = (value, digits) => Number(value.toFixed(digits));

  // The data of a song's page; see html_pages.song_data.
  function songData(scores, frames, seconds, picture) {
    const n = labels.length;
    const count = frames.length / n;
    const applies = applying(scores);
    const lengths = durations(frames, seconds);
    const order = labels.map((_, tag) => tag);
    order.sort(
      (a, b) => applies[b] - applies[a] || lengths[b] - lengths[a] || scores[b] - scores[a],
    );
    const most = Math.min(page.most_columns, Math.floor(page.most_values / n));
    const each = Math.ceil(count / Math.max(page.least_columns, most));
    const columns = Math.ceil(count / each);
    const values = new Uint8Array(columns * n);
    order.forEach((tag, row) => {
      for (let frame = 0; frame < count; frame += 1) {
        const place = row * columns + Math.floor(frame / each);
        values[place] = Math.max(values[place], quantised(frames[frame * n + tag], tag));
      }
    });
    return {
      seconds,
      exclusive,
      tags: order.map((tag) => ({
        name: labels[tag],
        score: rounded(scores[tag], page.score_digits),
        threshold: thresholds === null ? null : thresholds[tag],
        applies: applies[tag],
      })),
      columns,
      n_frames: count,
      frames_per_column: each,
      start_s: (model.frames.first_ms - model.frames.stride_ms / 2) / 1000,
      stride_s: model.frames.stride_ms / 1000,
      frames: base64(values),
      picture: { start_s: picture.start_s, stop_s: picture.stop_s, ticks: model.ticks },
    };
  }

  // The row of the index, without name and page; see html_pages.index_page.
  function indexRow(scores, seconds) {
    const applies = applying(scores);
    return {
      audio: null, // a page does not know where its files are
      seconds: rounded(seconds, page.time_digits),
      scores: Array.from(scores, (score) => rounded(score, page.score_digits)),
      applies: labels.map((_, tag) => tag).filter((tag) => applies[tag]),
    };
  }

  // The image of a spectrogram (columns, bands): loud is dark; see html_pages.shades.
  function shades(pixels, columns, bands) {
    const each = Math.ceil(bands / page.most_bands);
    const height = Math.ceil(bands / each);
    const rows = new Float64Array(height * columns); // high is at the top
    for (let row = 0; row < height; row += 1) {
      const stop = Math.min((row + 1) * each, bands);
      for (let column = 0; column < columns; column += 1) {
        let sum = 0;
        for (let band = row * each; band < stop; band += 1) sum += pixels[column * bands + band];
        rows[(height - 1 - row) * columns + column] = sum / (stop - row * each);
      }
    }
    const sorted = Float64Array.from(rows).sort();
    const percentile = (percent) => {
      const place = (percent / 100) * (sorted.length - 1);
      const low = Math.floor(place);
      const next = sorted[Math.min(low + 1, sorted.length - 1)];
      return sorted[low] + (place - low) * (next - sorted[low]);
    };
    const [low, high] = [percentile(page.quiet_percentile), percentile(page.loud_percentile)];
    const greys = page.greys - 1;
    const image = Uint8Array.from(rows, (level) => {
      const loud = Math.min(Math.max((level - low) / Math.max(high - low, 1e-6), 0), 1);
      return Math.round(Math.round((1 - loud) * greys) * (255 / greys));
    });
    return { width: columns, height, image };
  }

  return { runningPool, scoresOf, songData, indexRow, shades };
}

// The worker: runs the model on the waveforms that the page sends.
function rfkerasWorker(sound) {
  let model, tags, mel, session, ort;

  function bytesOf(text) {
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i += 1) bytes[i] = binary.charCodeAt(i);
    return bytes;
  }

  async function unpacked(text) {
    const stream = new Blob([bytesOf(text)]).stream();
    const content = stream.pipeThrough(new DecompressionStream("gzip"));
    return new Response(content).arrayBuffer();
  }

  async function open({ runtime, engine, settings }) {
    model = settings;
    tags = rfkerasTags(model);
    mel = sound.melSpectrogram(model.spectrogram);
    const code = new Blob([await unpacked(runtime.module)], { type: "text/javascript" });
    ort = await import(URL.createObjectURL(code));
    ort.env.wasm.numThreads = 1; // more need headers that files and plain servers lack
    ort.env.wasm.wasmBinary = await unpacked(runtime.wasm);
    ort.env.logLevel = "error";
    session = await ort.InferenceSession.create(bytesOf(engine), { executionProviders: ["wasm"] });
  }

  // The chunks of a waveform; see rfkeras.inference.stream.chunked.
  function* chunksOf(length) {
    const { plan } = model;
    let start = 0;
    for (; length - start > plan.reserve_samples; start += plan.step_samples) {
      yield { start, stop: start + plan.samples, skip: start ? plan.skip : 0, end: plan.stop };
    }
    yield { start, stop: length, skip: start ? plan.skip : 0, end: Infinity };
  }

  function padded(samples) {
    if (samples.length >= model.shortest_samples) return samples;
    const longer = new Float32Array(model.shortest_samples);
    longer.set(samples);
    return longer;
  }

  // Frames of the spectrogram, averaged to the columns of the picture.
  function runningPicture(length) {
    const { spectrogram, page } = model;
    const hop = spectrogram.hop_samples;
    const bands = spectrogram.offset_db.length;
    const total = 1 + Math.floor(Math.max(length, spectrogram.min_samples) / hop);
    const columns = Math.min(total, page.picture_columns);
    const sums = new Float64Array(columns * bands);
    const counts = new Uint32Array(columns);
    let done = 0;

    // The last frames of a chunk, which reach beyond it, come from the next one.
    function add(levels, frames, first, isLast) {
      const beyond = isLast ? 0 : Math.ceil(spectrogram.window_samples / hop);
      const stop = Math.min(first + frames - beyond, total);
      const channels = model.channels;
      for (; done < stop; done += 1) {
        const column = Math.floor((done * columns) / total);
        counts[column] += channels;
        for (let i = 0; i < bands * channels; i += 1) {
          const level = levels[(done - first) * bands * channels + i];
          sums[column * bands + Math.floor(i / channels)] += level;
        }
      }
    }

    function result() {
      const pixels = sums.map((sum, i) => sum / Math.max(1, counts[Math.floor(i / bands)]));
      const halfS = hop / model.sample_rate_hz / 2;
      const stop = Math.max(length / model.sample_rate_hz, 2 * halfS) + halfS;
      return { ...tags.shades(pixels, columns, bands), start_s: -halfS, stop_s: stop };
    }

    return { add, result };
  }

  async function computed(levels, frames) {
    const { mean_db: mean, std_db: std, channels } = model;
    const input = levels.map((level, i) => {
      const band = Math.floor(i / channels) % mean.length;
      return Math.fround(level - mean[band]) / std[band];
    });
    const shape = [1, frames, mean.length, channels];
    const tensor = new ort.Tensor("float32", input, shape);
    return session.run({ [session.inputNames[0]]: tensor });
  }

  // What the page shows of a waveform; `onProgress` gets the share that is done.
  async function tag(channels, rateHz, onProgress) {
    const sources = channels.map((each) => sound.resampler(each, rateHz, model.sample_rate_hz));
    const { length } = sources[0];
    if (length === 0) throw new Error("no audio samples");
    const n = model.labels.length;
    const { logits, scores, weights } = model.outputs;
    const picture = runningPicture(length);
    const pool = tags.runningPool();
    const parts = [];
    for (const { start, stop, skip, end } of chunksOf(length)) {
      const { frames, levels } = mel(sources.map((each) => padded(each.read(start, stop))));
      picture.add(levels, frames, start / model.spectrogram.hop_samples, stop === length);
      const found = await computed(levels, frames);
      const kept = (name) =>
        name in found ? found[name].data.slice(skip * n, end * n) : null;
      pool.add(kept(logits), kept(weights));
      parts.push(kept(scores));
      onProgress(stop / length);
    }
    const frameScores = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((at, part) => (frameScores.set(part, at), at + part.length), 0);
    const clip = tags.scoresOf(pool.result());
    const seconds = length / model.sample_rate_hz;
    const image = picture.result();
    return {
      scores: clip,
      row: tags.indexRow(clip, seconds),
      data: tags.songData(clip, frameScores, seconds, image),
      image,
    };
  }

  self.onmessage = async ({ data }) => {
    try {
      if (data.open) {
        await open(data.open);
        self.postMessage({ ready: true });
        return;
      }
      const result = await tag(data.channels, data.rateHz, (done) =>
        self.postMessage({ done }),
      );
      self.postMessage({ result });
    } catch (error) {
      self.postMessage({ error: String(error?.message ?? error) });
    }
  };
}
