(() => {
  "use strict";
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const by = (id) => document.getElementById(id);
  const root = document.documentElement;

  // Light or dark: what the system has, until the reader says otherwise.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const show = (theme) => {
    root.dataset.theme = theme;
    by("theme").textContent = theme === "dark" ? "Light" : "Dark";
  };
  show(dark.matches ? "dark" : "light");
  dark.addEventListener("change", (event) => show(event.matches ? "dark" : "light"));
  by("theme").addEventListener("click", () => show(root.dataset.theme === "dark" ? "light" : "dark"));

  // What is picked or hidden, in the table and in every chart of trials.
  const body = by("table").tBodies[0];
  const rows = [...body.rows];
  const picked = new Set();
  const linked = [];
  const signal = (name, values) =>
    linked.forEach((view) => view.signal(name, [...values]).runAsync());

  const pick = (trial) => {
    if (!picked.delete(trial)) picked.add(trial);
    rows.forEach((row) => {
      const on = picked.has(Number(row.dataset.trial));
      row.classList.toggle("picked", on);
      row.querySelector(".pick").setAttribute("aria-pressed", on);
    });
    signal("picked", picked);
    say(picked.size ? `Picked: ${[...picked].join(", ")}` : "Nothing is picked");
  };
  const say = (words) => { by("said").textContent = words; };

  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) pick(Number(row.dataset.trial));
  });

  const filter = () => {
    const words = by("words").value.toLowerCase().split(/[\s,]+/).filter(Boolean);
    const key = by("with").value;
    const hidden = [];
    rows.forEach((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word)) ||
        (key !== "" && !JSON.parse(row.dataset.with).includes(key));
      if (row.hidden) hidden.push(Number(row.dataset.trial));
    });
    by("count").textContent = `${rows.length - hidden.length} of ${rows.length} trials`;
    signal("hidden", hidden);
  };
  by("filter").addEventListener("input", filter);
  by("filter").addEventListener("submit", (event) => event.preventDefault());
  by("clear").addEventListener("click", () => {
    by("filter").reset();
    [...picked].forEach(pick);
    filter();
  });

  all(".sort").forEach((button) => button.addEventListener("click", () => {
    const head = button.closest("th");
    const up = head.getAttribute("aria-sort") === "descending";
    const column = Number(button.dataset.column);
    all("#table th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => {
      const cell = row.cells[column];
      return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
    };
    const missing = (v) => typeof v === "number" && Number.isNaN(v);
    rows.sort((a, b) => {
      const [one, two] = [value(a), value(b)];
      if (missing(one) || missing(two)) return missing(one) - missing(two); // last, up or down
      const order = typeof one === "number" ? one - two : one.localeCompare(two, undefined, { numeric: true });
      return up ? order : -order;
    });
    body.append(...rows);
  }));

  all(".copy").forEach((button) => button.addEventListener("click", async () => {
    const text = by(button.dataset.of).textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // a file that is opened from the disk may not
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    say("Copied");
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }));

  // Charts, each drawn when it comes near the window.
  const specs = JSON.parse(by("charts").textContent);
  const draw = async (place) => {
    const { view } = await vegaEmbed(place, specs[place.dataset.chart], { renderer: "svg", actions: false });
    place.querySelector("svg").setAttribute("aria-hidden", "true"); // the place says what it shows
    if (place.dataset.chart.startsWith("strength-") || place.dataset.chart === "trials") {
      linked.push(view);
      view.signal("picked", [...picked]);
      view.signal("hidden", rows.filter((row) => row.hidden).map((row) => Number(row.dataset.trial)));
      view.addEventListener("click", (_, item) => {
        if (item && item.datum && item.datum.trial !== undefined) pick(item.datum.trial);
      });
      await view.runAsync();
    }
    place.dataset.drawn = "yes";
  };
  const near = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    near.unobserve(entry.target);
    draw(entry.target);
  }), { rootMargin: "600px" });
  all(".chart").forEach((place) => near.observe(place));
  addEventListener("beforeprint", () => all(".chart:not([data-drawn])").forEach(draw));
})();
