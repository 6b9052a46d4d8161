import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// The built page is part of the Python package; a run serves it beside the API.
export default defineConfig({
  plugins: [react()],
  build: {
    outDir: "../src/headrace/web/static",
    emptyOutDir: true,
    target: "es2022",
    // The page's policy allows no inline data for fonts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { proxy: { "/api": "http://127.0.0.1:8600" } },
});
