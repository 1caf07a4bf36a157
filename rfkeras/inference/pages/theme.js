// Light and dark colours: those of the system until the button is used.
"use strict";

(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  function chosen() {
    try {
      return localStorage.getItem("rfkeras-theme");
    } catch {
      return null; // some browsers keep nothing for files
    }
  }

  function apply(theme) {
    root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) button.setAttribute("aria-pressed", String(theme === "dark"));
    document.dispatchEvent(new Event("themechange"));
  }

  const ofSystem = () => (system.matches ? "dark" : "light");
  apply(chosen() || ofSystem());
  system.addEventListener("change", () => chosen() || apply(ofSystem()));
  document.addEventListener("DOMContentLoaded", () => {
    apply(root.dataset.theme);
    document.getElementById("theme").addEventListener("click", () => {
      const theme = root.dataset.theme === "dark" ? "light" : "dark";
      try {
        localStorage.setItem("rfkeras-theme", theme);
      } catch {
        // the choice lasts as long as the page
      }
      apply(theme);
    });
  });
})();
