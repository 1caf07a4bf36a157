// The index: a table of songs and tags that can be sorted, filtered and saved.
"use strict";

(() => {
  const ROWS = 500; // drawn at a time
  const MOST_COLUMNS = 24;
  const get = (id) => document.getElementById(id);
  const data = JSON.parse(get("data").textContent);
  const tags = data.labels;
  const songs = data.songs.filter((song) => song.error === undefined);
  const failed = data.songs.filter((song) => song.error !== undefined);
  const conditions = []; // {tag, kind, value}
  const shown = new Set(); // tags with a column
  let sort = null; // {by: "name", "seconds", "count" or the number of a tag; down}
  let selection = [];
  let drawn = ROWS;

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  function clock(time) {
    const whole = Math.ceil(time);
    const two = (number) => String(number).padStart(2, "0");
    const minutes = Math.floor(whole / 60);
    return minutes < 60
      ? `${minutes}:${two(whole % 60)}`
      : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
  }

  const KINDS = {
    applies: { text: "applies", test: (song, { tag }) => song.applies.includes(tag) },
    not: { text: "does not apply", test: (song, { tag }) => !song.applies.includes(tag) },
    least: { text: "is at least", test: (song, { tag, value }) => song.scores[tag] >= value },
    below: { text: "is below", test: (song, { tag, value }) => song.scores[tag] < value },
  };
  const hasValue = (kind) => kind === "least" || kind === "below";

  // Conditions

  function addCondition() {
    const condition = { tag: null, kind: "least", value: 0.5 }; // null selects all songs
    const word = element("span", { className: "word" });
    const tag = element(
      "select",
      {},
      new Option("choose a tag", ""),
      ...tags.map((name, i) => new Option(name, String(i))),
    );
    const kind = element(
      "select",
      {},
      ...Object.entries(KINDS).map(([key, { text }]) => new Option(text, key)),
    );
    const value = element("input", { type: "number", min: "0", max: "1", step: "any" });
    const remove = element("button", { type: "button", textContent: "Remove" });
    const row = element("div", { className: "condition" }, word, tag, kind, value, remove);
    row.setAttribute("role", "group");
    row.setAttribute("aria-label", "Condition");
    tag.setAttribute("aria-label", "Tag");
    kind.setAttribute("aria-label", "Comparison");
    value.setAttribute("aria-label", "Score");
    kind.value = condition.kind;
    value.value = String(condition.value);
    const read = () => {
      condition.tag = tag.value === "" ? null : Number(tag.value);
      condition.kind = kind.value;
      value.hidden = !hasValue(kind.value);
      if (value.value !== "" && value.validity.valid) condition.value = Number(value.value);
      drawHead();
      update();
    };
    for (const control of [tag, kind]) control.addEventListener("change", read);
    value.addEventListener("input", read);
    remove.addEventListener("click", () => {
      conditions.splice(conditions.indexOf(condition), 1);
      row.remove();
      nameConditions();
      drawHead();
      update();
      get("add").focus();
    });
    conditions.push(condition);
    get("conditions").append(row);
    nameConditions();
    drawHead();
    update();
    tag.focus();
  }

  function nameConditions() {
    get("conditions")
      .querySelectorAll(".word")
      .forEach((word, i) => {
        word.textContent = i ? "and" : "if";
      });
  }

  // Selection

  function compare(a, b) {
    if (sort === null) return 0;
    const { by, down } = sort;
    const sign = down ? -1 : 1;
    if (by === "name") return sign * a.name.localeCompare(b.name, undefined, { numeric: true });
    const key = (song) =>
      by === "seconds" ? song.seconds : by === "count" ? song.applies.length : song.scores[by];
    return sign * (key(a) - key(b));
  }

  function select() {
    const words = get("search").value.toLocaleLowerCase().normalize("NFC").split(/\s+/);
    return songs
      .filter((song) => {
        const name = song.name.toLocaleLowerCase().normalize("NFC");
        return (
          words.every((word) => name.includes(word)) &&
          conditions.every((each) => each.tag === null || KINDS[each.kind].test(song, each))
        );
      })
      .sort(compare); // which keeps the order of equal songs
  }

  // The table

  function usedTags() {
    const used = new Set(conditions.map((condition) => condition.tag));
    if (sort !== null && typeof sort.by === "number") used.add(sort.by);
    return used;
  }

  function columns() {
    const used = usedTags();
    return tags.map((_, tag) => tag).filter((tag) => shown.has(tag) || used.has(tag));
  }

  function headCell(by, text, className) {
    const name = element("span", { textContent: text });
    const button = element("button", { type: "button", title: text }, name);
    const cell = element("th", { scope: "col", className }, button);
    if (sort !== null && sort.by === by) {
      cell.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      const arrow = sort.down ? "\u25be" : "\u25b4";
      button.append(element("span", { className: "arrow", textContent: arrow }));
    }
    button.addEventListener("click", () => {
      const first = by !== "name"; // high scores first, names from A
      sort = { by, down: sort !== null && sort.by === by ? !sort.down : first };
      drawHead();
      update();
      [...get("head").cells]
        .find((each) => each.hasAttribute("aria-sort"))
        .querySelector("button")
        .focus();
    });
    return cell;
  }

  const scoreClass = (tag, used) => (used.has(tag) ? "score used" : "score");

  function drawHead() {
    const used = usedTags();
    get("head").replaceChildren(
      headCell("name", "Song", "name"),
      headCell("seconds", "Length", "number wide"),
      headCell("count", "Tags that apply", "list"),
      ...columns().map((tag) => headCell(tag, tags[tag], scoreClass(tag, used))),
    );
  }

  const bestFirst = (song) =>
    [...song.applies].sort((a, b) => song.scores[b] - song.scores[a]);

  function songRow(song, used) {
    const parts = song.name.split("/");
    const name = element("bdi", { textContent: parts.pop() });
    const link = element("a", { href: song.page }, name);
    const about = [parts.join("/"), ...(song.notes ?? [])].filter(Boolean);
    const list = bestFirst(song).map((tag) => tags[tag]).join(", ") || "\u2013";
    const row = element(
      "tr",
      {},
      element("th", { scope: "row" }, link),
      element("td", { className: "number wide", textContent: clock(song.seconds) }),
      element("td", { className: "list", textContent: list }),
    );
    for (const textContent of about) {
      row.cells[0].append(element("div", { className: "about", textContent }));
    }
    for (const tag of columns()) {
      const score = song.scores[tag];
      const cell = element("td", {
        className: scoreClass(tag, used),
        textContent: score.toFixed(2),
      });
      cell.style.background = `rgb(var(--score) / ${(0.55 * score).toFixed(3)})`;
      cell.classList.toggle("applies", song.applies.includes(tag));
      row.append(cell);
    }
    return row;
  }

  function drawBody() {
    const used = usedTags();
    get("body").replaceChildren(
      ...selection.slice(0, drawn).map((song) => songRow(song, used)),
    );
    get("more").hidden = selection.length <= drawn;
    get("count").textContent =
      selection.length === songs.length
        ? `${songs.length} ${songs.length === 1 ? "song" : "songs"}`
        : `${selection.length} of ${songs.length} ${songs.length === 1 ? "song" : "songs"}`;
    get("csv").disabled = selection.length === 0;
    get("m3u8").disabled = selection.every(({ audio }) => audio === null);
  }

  function update() {
    selection = select();
    drawn = ROWS;
    drawBody();
  }

  function addColumns() {
    const times = tags.map((_, tag) => songs.filter((s) => s.applies.includes(tag)).length);
    const common = tags.map((_, tag) => tag).sort((a, b) => times[b] - times[a]);
    for (const tag of common.slice(0, MOST_COLUMNS)) shown.add(tag);
    tags.forEach((name, tag) => {
      const box = element("input", { type: "checkbox", checked: shown.has(tag) });
      box.addEventListener("change", () => {
        if (box.checked) shown.add(tag);
        else shown.delete(tag);
        drawHead();
        drawBody();
      });
      get("columns").append(element("label", {}, box, element("bdi", { textContent: name })));
    });
  }

  function addFailed() {
    get("failed-section").hidden = failed.length === 0;
    for (const { name, error } of failed) {
      const file = element("th", { scope: "row" }, element("bdi", { textContent: name }));
      get("failed").append(element("tr", {}, file, element("td", { textContent: error })));
    }
  }

  // Export

  function save(name, kind, text) {
    const url = URL.createObjectURL(new Blob([text], { type: kind }));
    const link = element("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // The same columns as `rfkeras tag --format csv`, which `rfkeras find` reads.
  function csvText() {
    const quote = (value) => {
      const text = String(value);
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const lines = [
      ["path", "seconds", "error", "tags", "thresholds", ...tags],
      ...selection.map((song) => {
        const applied = bestFirst(song);
        const limits = data.thresholds === null ? [] : applied.map((tag) => data.thresholds[tag]);
        return [
          song.audio === null ? song.name : audioPath(song.audio),
          song.seconds,
          "",
          applied.map((tag) => tags[tag]).join("; "),
          limits.join("; "),
          ...song.scores,
        ];
      }),
    ];
    // The mark at the start tells spreadsheets that this is UTF-8.
    return `\ufeff${lines.map((line) => `${line.map(quote).join(",")}\r\n`).join("")}`;
  }

  // What is saved is in another folder than this page, so paths are absolute.
  function audioPath(audio) {
    const url = new URL(audio, location.href);
    if (url.protocol !== "file:") return url.href;
    try {
      const path = decodeURIComponent(url.pathname).replace(/^\/(?=[A-Za-z]:\/)/, "");
      const plain = !url.host && !/[\r\n]/.test(path) && path === path.trim();
      return plain ? path : url.href;
    } catch {
      return url.href; // a name that is not UTF-8
    }
  }

  function playlistText() {
    const lines = ["#EXTM3U"];
    for (const song of selection) {
      if (song.audio === null) continue;
      const title = song.name.replaceAll(/[\r\n]/g, " ");
      lines.push(`#EXTINF:${Math.round(song.seconds)},${title}`, audioPath(song.audio));
    }
    return `${lines.join("\n")}\n`;
  }

  get("search").addEventListener("input", update);
  get("add").addEventListener("click", addCondition);
  get("clear").addEventListener("click", () => {
    conditions.length = 0;
    get("conditions").replaceChildren();
    get("search").value = "";
    sort = null;
    drawHead();
    update();
  });
  get("more").addEventListener("click", () => {
    drawn += ROWS;
    drawBody();
  });
  get("csv").addEventListener("click", () => save("songs.csv", "text/csv", csvText()));
  get("m3u8").addEventListener("click", () =>
    save("songs.m3u8", "audio/x-mpegurl", playlistText()),
  );
  get("add").disabled = tags.length === 0;
  addColumns();
  addFailed();
  drawHead();
  update();
})();
